"""`da-compose compose`: files of weights to a backbone that `adapt` takes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v3_small

from da_compose import load_backbone
from tests.benchmarks.calls import refuse, succeed

CLASSES = ("cat", "dog", "house")


@pytest.fixture
def experts(tmp_path: Path) -> list[str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in ("site-1", "site-2"):
            state = mobilenet_v3_small(num_classes=3).state_dict()
            torch.save(state, tmp_path / f"{name}.pth")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return [f"{name}={tmp_path / name}.pth" for name in ("site-1", "site-2")]


@pytest.mark.slow
def test_files_of_weights_become_a_backbone_that_is_adapted(experts: list[str], tmp_path: Path):
    out, images, adapter = (
        tmp_path / "b.safetensors",
        tmp_path / "i.npz",
        tmp_path / "a.safetensors",
    )
    options = ("--network", "mobilenet_v3_small", "--image-size", 32)
    classes = ("--classes", tmp_path / "classes.txt")
    said = succeed("compose", out, *experts, *options, *classes).stdout
    assert said == f"wrote {out}: 2 experts, 11 layers, 22 numbers a domain\n"
    assert load_backbone(out).class_names == CLASSES
    generator = np.random.default_rng(0)
    np.savez(images, images=generator.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    steps = ("--images", images, "--out", adapter, "--steps", 2)
    assert "22 learned numbers" in succeed("adapt", "--backbone", out, *steps).stdout
    error = refuse("adapt", "--backbone", out, *steps, "--strategy", "moment_matching")
    assert "needs to know the sources" in error
    assert "coefficients of site-2" in succeed("inspect", out).stdout


def test_mistakes_are_said_in_one_line(experts: list[str], tmp_path: Path):
    out, network = tmp_path / "b.safetensors", ("--network", "mobilenet_v3_small")
    assert "expected NAME=PATH, got 'site1.pth'" in refuse("compose", out, "site1.pth", *network)
    assert "two experts have one name" in refuse("compose", out, experts[0], experts[0], *network)
    assert "expected 2 experts or more" in refuse("compose", out, experts[0], *network)
    assert "give class_names=" in refuse("compose", out, *experts, *network)
    missing = refuse("compose", out, experts[0], f"b={tmp_path / 'none.pth'}", *network)
    assert "no file of weights at" in missing
    assert not out.exists()
