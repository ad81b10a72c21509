"""What the commands say of the accuracy to expect."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapters.prepare import Ready
from da_compose import Backbone
from da_compose.images import ImageSet
from da_compose.training.rehearsal import RehearsalConfig, rehearse
from tests.benchmarks.calls import succeed


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Labelled pictures of 60 random images."""
    generator = np.random.default_rng(0)
    for number in range(60):
        folder = tmp_path / "scans" / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "scans"


def write(backbone: Backbone, path: Path) -> Path:
    backbone.save(path)
    return path


@pytest.fixture
def rehearsed(backbone: Backbone, tmp_path: Path) -> Path:
    images = np.random.default_rng(1).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    held_out = {"mnist": ImageSet(images, np.arange(60) % 10)}
    config = RehearsalConfig(mock_targets=4, images=16)
    return write(rehearse(backbone, held_out, config), tmp_path / "rehearsed.safetensors")


def adapted(backbone: Path, scans: Path, *more: object) -> tuple[Path, str]:
    out = scans.parent / "site.safetensors"
    options = ("--images", scans, "--out", out, "--steps", 2, *more)
    return out, succeed("adapt", "--backbone", backbone, *options).stdout.splitlines()[0]


def test_adapt_predict_and_evaluate_say_what_is_expected(
    rehearsed: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Ready, "meaningless", False)  # random weights know nothing
    out, first = adapted(rehearsed, scans)
    assert first.startswith("estimated accuracy: ") and "% (90 % interval" in first
    assert all(name in first for name in ("source only", "batch norm", "start"))
    expected = int(first.split(":")[1].split("%")[0])
    options = ("--backbone", rehearsed, "--adapter", out)
    rows = list(csv.DictReader(io.StringIO(succeed("predict", *options, scans).stdout)))
    sure = 100 * np.mean([float(row["confidence"]) for row in rows])
    assert sure == pytest.approx(expected, abs=2.0)
    said = succeed("evaluate", *options, "--domain", scans).stdout.splitlines()
    assert said[1] == f"estimated without labels when it was adapted: {first[20:].split(';')[0]}"


def test_a_backbone_that_was_not_rehearsed_says_so(
    backbone: Backbone, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Ready, "meaningless", False)
    path = write(replace(backbone), tmp_path / "old.safetensors")
    out, first = adapted(path, scans)
    assert first.startswith("estimated accuracy: none, this backbone was never rehearsed")
    said = succeed("evaluate", "--backbone", path, "--adapter", out, "--domain", scans).stdout
    assert "estimated" not in said


def test_pictures_that_mean_nothing_are_named(rehearsed: Path, scans: Path, monkeypatch):
    monkeypatch.setattr(Ready, "meaningless", True)
    _, first = adapted(rehearsed, scans)
    assert first.startswith(
        "estimated accuracy: none, the images look like nothing the sources held"
    )
