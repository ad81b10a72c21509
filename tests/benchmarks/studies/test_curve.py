"""The study of how many numbers learn: its variants, its lines, its table and picture."""

import json
from typing import Any

import numpy as np
import torch
from torch.testing import assert_close

from benchmarks.harness.cells import Splits
from benchmarks.harness.folders import ROWS
from benchmarks.studies.curve import LEARNED, RANDOM, VARIANTS, Variant, as_long, outcomes, render
from da_compose import Backbone
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from tests.tiny_modules import CLASSES, SIZE, tiny_pretrained


def line(what: str, directions: int, numbers: int, **changes: Any) -> dict[str, Any]:
    known = {"target": "ink", "seed": 0, "steps": 2, "what": what, "directions": directions}
    accuracies = {"start": 50.0, "kept": 60.0, "last": 61.0, "labels": 70.0}
    return known | {"numbers": numbers} | accuracies | changes


def test_random_directions_are_as_long_in_each_layer():
    directions, layers = torch.randn(2, 12), torch.arange(3).repeat_interleave(4)
    drawn = as_long(directions, layers, seed=0)
    by_layer = (2, 3, 4)
    assert_close(drawn.view(by_layer).norm(dim=2), directions.view(by_layer).norm(dim=2))
    assert not torch.equal(drawn, directions)


def images(count: int, seed: int) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % CLASSES)


def test_each_variant_learns_its_numbers_from_the_same_start():
    network = tiny_pretrained("conv", max(variant.directions for variant in VARIANTS))
    network.domains.add(network.new_domain("ink"))
    knowledge = collect_knowledge(network, {"ink": images(20, 0)})
    wide = Backbone(network, tuple(map(str, range(CLASSES))), knowledge)
    target = Splits(images(30, 1), images(20, 2))
    lines = {}
    drawn = Variant(RANDOM, "mixture_weights", 4)
    for variant in (Variant(LEARNED, "mixture_weights", 2), drawn, *VARIANTS[-2:]):
        lines[variant.what] = outcomes(variant.of(wide, 0), target, variant.trains, 2, 0)
    layers = network.config.num_layers
    assert lines[LEARNED]["numbers"] == 2 * layers
    assert lines[RANDOM]["numbers"] == 4 * layers
    assert len({one["numbers"] for one in lines.values()}) == len(lines) == 4
    assert len({one["start"] for one in lines.values()}) == 1


def test_the_table_has_a_row_for_what_learns_and_the_picture_is_drawn(tmp_path):
    rows = [line(v.what, v.directions, 16 * v.directions) for v in VARIANTS]
    rows.append(line(LEARNED, 4, 64, target="chalk", kept=50.0))
    (tmp_path / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    render(tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "target: chalk, ink; seed: 0; steps: 2" in table
    assert f"| {LEARNED} | 64 | 50.0 | 55.0 | 61.0 | 70.0 |" in table
    assert f"| {RANDOM} | 64 | 50.0 | 60.0 | 61.0 | 70.0 |" in table
    assert (tmp_path / "curve.png").stat().st_size > 0
