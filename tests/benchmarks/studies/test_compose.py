"""The study of composed experts: what its lines and its table say."""

from typing import Any

import numpy as np
import torch

from benchmarks.harness.cells import Splits
from benchmarks.studies.compose import BOUND, TRIED, Setting, lines_of, markdown
from da_compose import compose
from da_compose.images import ImageSet
from tests.tiny_modules import SIZE, tiny_module

SETTING: dict[str, Any] = {
    "image_size": 8, "finetune_steps": 3, "adapt_steps": 2, "learning_rate": 0.1, "per_class": 0,
}  # fmt: skip


def images(count: int, seed: int) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % 7)


def test_each_method_has_a_line_and_an_ensemble_counts_its_passes():
    experts = {name: tiny_module(seed=number) for number, name in enumerate(("ink", "chalk"))}
    backbone = compose(experts, network=tiny_module(), class_names="abcdefg", image_size=SIZE)
    lines = [
        *lines_of(
            backbone, Splits(images(60, 0), images(20, 1)), 0, Setting(benchmark="pacs", **SETTING)
        )
    ]
    methods = [line["method"] for line in lines]
    alone = ["expert ink", "expert chalk", "ensemble"]
    learned = ["average", *(method for _, method in TRIED)]
    assert methods == [*alone, *alone, "average", *learned, BOUND]
    assert [line["passes"] for line in lines] == [1, 1, 2, 1, 1, 2, *[1] * 7]
    module = experts["chalk"]
    test = images(20, 1)
    pixels = torch.from_numpy(test.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        right = module(backbone.network.normalized(pixels)).argmax(1).numpy() == test.labels
    assert lines[1]["accuracy"] == 100 * right.mean()


def line(target: str, accuracy: float, **changes: Any) -> dict[str, Any]:
    known = {"seed": 0, "target": target, "method": "ensemble", "statistics": "its own"}
    return SETTING | known | {"passes": 3, "accuracy": accuracy} | changes


def test_a_method_has_its_mean_over_targets_where_all_have_it():
    alone = {"method": "expert ink", "passes": 1}
    table = markdown([line("chalk", 1.0), line("chalk", 50.0), line("ink", 60.0, seed=1),
                      line("ink", 62.0), line("chalk", 40.0, **alone),
                      line("aid", 90.0, benchmark="satellite")])  # fmt: skip
    assert "pacs, 8 pixels; 3 steps of fine-tuning, 2 on ξ at 0.1; seeds 0, 1" in table
    assert "| ensemble | its own | 3 | 50.0 | 61.0 ± 1.4 | 55.5 |" in table
    assert "| expert ink | its own | 1 | 40.0 | - | - |" in table
    assert "satellite, 8 pixels" in table and "| ensemble | its own | 3 | 90.0 | 90.0 |" in table
