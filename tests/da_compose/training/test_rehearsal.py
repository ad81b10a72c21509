from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from da_compose import Backbone, load_backbone, pretrain
from da_compose.estimate import Estimator
from da_compose.images import ImageSet
from da_compose.knowledge import Rehearsal, collect_knowledge
from da_compose.training.recipes import RECIPES
from da_compose.training.rehearsal import (
    LEAST_HELD_OUT,
    PARTS,
    RehearsalConfig,
    mock_target,
    rehearse,
)

SHORT = RehearsalConfig(mock_targets=6, images=16)


@pytest.fixture
def backbone(make_network, make_images) -> Backbone:
    network = make_network()
    knowledge = collect_knowledge(network, {name: make_images(12) for name in ("a", "b")})
    return Backbone(network, ("x", "y", "z"), knowledge)


@pytest.fixture
def held_out(make_images) -> dict[str, ImageSet]:
    return {"a": make_images(36), "b": make_images(33, seed=1, colour=True)}


def same(one: Rehearsal | None, other: Rehearsal | None) -> bool:
    assert one is not None and other is not None
    return all(torch.equal(vars(one)[part], vars(other)[part]) for part in vars(one))


def test_a_rehearsal_is_kept_in_the_backbones_file(backbone, held_out, tmp_path: Path):
    rehearsed = rehearse(backbone, held_out, SHORT)
    found = rehearsed.rehearsal
    assert found is not None
    assert len(found.accuracy) == 6 * 3 * len(PARTS)  # three blends of the plain start
    assert found.mock.unique().tolist() == list(range(6))
    assert found.images.unique().tolist() == [1, 2, 4, 8, 16]
    assert ((found.accuracy >= 0) & (found.accuracy <= 1)).all()
    assert rehearsed.fingerprint == backbone.fingerprint and backbone.rehearsal is None
    assert same(found, rehearse(backbone, held_out, SHORT).rehearsal)
    rehearsed.save(tmp_path / "b.safetensors")
    loaded = load_backbone(tmp_path / "b.safetensors").rehearsal
    assert same(loaded, found)
    assert 0 <= Estimator(found, 9)(found.figures[0]).accuracy <= 1
    backbone.save(tmp_path / "old.safetensors")
    assert load_backbone(tmp_path / "old.safetensors").rehearsal is None


def test_too_few_held_out_images_are_no_rehearsal(backbone, make_images):
    few = {"a": make_images(LEAST_HELD_OUT - 1)}
    assert rehearse(backbone, few, SHORT).rehearsal is None


def test_mock_targets_differ_in_source_look_and_class_frequencies(held_out):
    made = [mock_target(held_out, number, 3, replace(SHORT, images=12)) for number in range(10)]
    for images, labels in made:
        assert images.shape == (12, 8, 8, 3) and images.dtype == np.uint8 and len(labels) == 12
    again, _ = mock_target(held_out, 3, 3, replace(SHORT, images=12))
    assert np.array_equal(again, made[3][0])
    assert len({images.tobytes() for images, _ in made}) == 10
    plain, labels = made[9]  # every tenth as it is: a picture of its source, under its label
    source = held_out["b"]
    known = {
        image.tobytes(): label for image, label in zip(source.images, source.labels, strict=True)
    }
    assert [known[image.tobytes()] for image in plain] == labels.tolist()
    counts = [torch.bincount(labels, minlength=3).double() for _, labels in made]
    assert max(c.max() / c.clamp_min(1).min() for c in counts[1::2]) > 3


def test_pretraining_holds_a_share_out_and_rehearses_on_it(
    make_images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("da_compose.training.rehearsal.RehearsalConfig", lambda: SHORT)
    recipe = replace(
        RECIPES["digits-strong"],
        network=replace(
            RECIPES["digits-strong"].network, num_layers=2, num_templates=2, channels=4,
            image_size=8, patch_size=4,
        ),
    )  # fmt: skip
    sources = {"a": (make_images(240).images, make_images(240).labels)}
    options = {"recipe": recipe, "steps": 2, "show_progress": False}
    found = pretrain(sources, out=tmp_path / "held", **options)
    assert found.rehearsal is not None and found.notes["held_out"] == 0.1
    assert found.knowledge["a"].num_images == 216
    assert same(pretrain(sources, out=tmp_path / "held", **options).rehearsal, found.rehearsal)
    whole = pretrain(sources, out=tmp_path / "whole", held_out=0, **options)
    assert whole.rehearsal is None and whole.knowledge["a"].num_images == 240
    with pytest.raises(ValueError, match="held_out must be a share from 0 to below 1, got 1"):
        pretrain(sources, out=tmp_path / "none", held_out=1, **options)
    with pytest.raises(ValueError, match="another held_out"):
        pretrain(sources, out=tmp_path / "held", held_out=0.2, **options)
