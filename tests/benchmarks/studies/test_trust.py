from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from adapters.config import AdaptConfig
from adapters.prepare import Ready
from benchmarks.harness.folders import ROWS
from benchmarks.harness.rows import append_line
from benchmarks.studies import trust
from benchmarks.studies.conditions import (
    CONDITIONS,
    half_of_the_classes,
    nothing_but,
    with_strangers,
)
from benchmarks.studies.trust import SETTINGS, calibration_error, measure_cell
from benchmarks.studies.trust_table import ALL, GUARDED, render, summary
from da_compose.images import ImageSet
from da_compose.training.rehearsal import RehearsalConfig, rehearse


def image_set(count: int, seed: int = 0) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    return ImageSet(images, np.arange(count) % 10)


def test_a_target_of_half_of_the_classes_has_no_others():
    found = half_of_the_classes(image_set(50), np.random.default_rng(0))
    assert len(np.unique(found.labels)) == 5 and len(found) == 25


def test_strangers_are_a_fifth_of_all_in_the_targets_colours():
    coloured = np.zeros((30, 32, 32, 3), dtype=np.uint8)
    target, generator = image_set(40), np.random.default_rng(0)
    found = with_strangers(target, generator, strangers=coloured)
    assert found.shape == (50, 32, 32) and not found[40:].any()
    target = ImageSet(np.ones((40, 32, 32, 3), dtype=np.uint8), target.labels)
    assert with_strangers(target, generator, strangers=coloured[..., 0]).shape == (50, 32, 32, 3)
    assert nothing_but(target, generator, strangers=coloured).shape == coloured.shape


def test_the_calibration_error_is_the_gap_of_each_bin_by_its_share():
    prediction = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])  # right, wrong; right, right
    expected = (abs(1 - 1.9) + abs(2 - 1.25)) / 4
    assert calibration_error(prediction, labels) == pytest.approx(expected)


def test_data_sets_are_development_or_held_out_as_a_whole():
    kinds = {s.kind: set() for s in SETTINGS.values()}
    for setting in SETTINGS.values():
        assert not set(setting.sources) & set(setting.targets)
        if setting.kind != "digits":
            kinds[setting.kind].add(setting.development)
    assert all(len(found) <= 1 for found in kinds.values())
    development = {
        (s.kind, t) for s in SETTINGS.values() if s.development for t in (*s.sources, *s.targets)
    }
    held_out = {(s.kind, t) for s in SETTINGS.values() if not s.development for t in s.targets}
    assert not development & held_out


def line(condition: str, *, trusted: bool, learned: float, estimate: float = 0.8) -> dict[str, Any]:
    true = {"source_only": 0.7, "batch_norm": 0.75, "start": 0.76, "adapted": learned}
    true[GUARDED] = learned if trusted else 0.76
    said = {"accuracy": estimate, "low": estimate - 0.05, "high": estimate + 0.05}
    return {
        "backbone": "b", "target": "t", "condition": condition, "development": True,
        "accuracy": true, "estimates": dict.fromkeys(true, said) if estimate else {},
        "verdict": {"trusted": trusted},
        "calibration_error": {"raw": 0.2, "calibrated": 0.1} if estimate else {},
    }  # fmt: skip


def test_the_summary_counts_harm_alarms_errors_and_coverage(tmp_path: Path):
    lines = [
        line("all", trusted=True, learned=0.79),
        line("all", trusted=False, learned=0.60),  # caught
        line("10 to 1", trusted=True, learned=0.70),  # missed
        line("10 to 1", trusted=False, learned=0.77),  # a false alarm
        line("noise", trusted=False, learned=0.10, estimate=0.0),  # caught, and no estimate
        line("another task", trusted=True, learned=0.20),  # not among all
    ]
    found = summary(lines).set_index("condition")
    whole = found.loc[ALL]
    assert whole["caught"] == "2 of 3" and whole["false alarms"] == "1 of 2"
    assert whole["cells"] == 5 and whole["called meaningless"] == 1
    assert whole["start"] == pytest.approx(1.0)
    assert whole["worst guarded"] == pytest.approx(-5.0)
    errors = [0.1, 0.05, 0.04]  # of source only, AdaBN, start; then of what is kept
    assert found.loc["all", "error"] == pytest.approx(100 * (sum(errors) * 2 + 0.01 + 0.04) / 8)
    assert found.loc["all", "covered"] == pytest.approx(75.0)
    unknown = found.loc["another task"]
    assert unknown["cells"] == 1 and unknown["called meaningless"] == 0
    assert pd.isna(unknown["error"]) and pd.isna(unknown["calibrated"])
    for one in lines:
        append_line(tmp_path / ROWS, one | {"images": 100})
    render(tmp_path)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "development" in table and "| noise | 1 |" in table
    assert (tmp_path / "estimates.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_is_measured_with_what_a_user_gets(backbone, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Ready, "meaningless", False)
    monkeypatch.setattr(trust, "MOST_IMAGES", 60)
    monkeypatch.setattr(trust, "AdaptConfig", partial(AdaptConfig, steps=4))
    held_out = {"mnist": image_set(60, seed=3)}
    rehearsed = rehearse(backbone, held_out, RehearsalConfig(mock_targets=4, images=16))
    domain = cast(Any, SimpleNamespace(train=image_set(80, seed=1), test=image_set(40, seed=2)))
    found = measure_cell(rehearsed, domain, half_of_the_classes)
    models = {"source_only", "batch_norm", "start", "adapted", GUARDED}
    assert set(found["accuracy"]) == set(found["estimates"]) == models
    assert all(0 <= accuracy <= 1 for accuracy in found["accuracy"].values())
    assert found["images"] == 40 and set(found["calibration_error"]) == {"raw", "calibrated"}
    if not found["verdict"]["trusted"]:
        assert found["accuracy"][GUARDED] == found["accuracy"]["start"]
    monkeypatch.setattr(trust, "AdaptConfig", partial(AdaptConfig, strategy="chosen_start"))
    found = measure_cell(rehearsed, domain, half_of_the_classes)
    true = found["accuracy"]
    assert "verdict" not in found and true[GUARDED] == true["adapted"] == true["start"]
    unlearned = line("all", trusted=True, learned=0.5) | found
    unlearned = {key: value for key, value in unlearned.items() if key != "verdict"}
    assert (
        set(summary([unlearned])["caught"])
        == {"0 of 0"}
        == set(summary([unlearned])["false alarms"])
    )
    monkeypatch.setattr(Ready, "meaningless", True)
    found = measure_cell(rehearsed, domain, CONDITIONS["noise"])
    assert found["estimates"] == {} == found["calibration_error"]
    assert set(CONDITIONS) >= {"noise", "all"}
