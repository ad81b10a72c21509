"""How bright the sources were, and domains of another range."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from da_compose import Backbone, load_backbone
from da_compose.images import ImageSet
from da_compose.inference import DomainModel
from da_compose.knowledge import collect_knowledge
from da_compose.pixel_range import pixel_range

USUAL = np.random.default_rng(0).integers(10, 240, (40, 8, 8), dtype=np.uint8)


def test_a_range_is_that_of_nearly_all_pixels() -> None:
    images = USUAL.copy()
    images[0, 0, 0] = 255
    low, mean, high = pixel_range(images)
    assert (low, high) == (10, 239) and mean == pytest.approx(USUAL.mean(), abs=1)


@pytest.fixture
def backbone(make_network, make_images) -> Backbone:
    network = make_network()
    sources = {name: ImageSet(USUAL, make_images(40).labels) for name in ("a", "b")}
    names = tuple(map(str, range(network.config.num_classes)))
    return Backbone(network, names, collect_knowledge(network, sources))


def test_another_range_is_said_after_saving_too(backbone: Backbone, tmp_path: Path) -> None:
    backbone.save(tmp_path / "b.safetensors")
    loaded = load_backbone(tmp_path / "b.safetensors")
    assert loaded.knowledge["a"].pixels == backbone.knowledge["a"].pixels is not None
    model = DomainModel(loaded, loaded.network.domains["a"])
    for far in (USUAL // 4, USUAL // 8 + 200):
        with pytest.warns(UserWarning, match=r"pixels here go from .* Are they scaled alike\?"):
            model.predict(far)
    for near in (USUAL // 2 + 60, 255 - USUAL, USUAL // 4 * 2, (USUAL // 4)[:5], USUAL // 40):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*nearly black")
            model.predict(near)


def test_a_backbone_that_does_not_know_is_silent(backbone: Backbone) -> None:
    knowledge = {n: replace(known, pixels=None) for n, known in backbone.knowledge.items()}
    older = replace(backbone, knowledge=knowledge)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = DomainModel(older, older.network.domains["a"]).predict(USUAL // 4)
    assert len(found) == len(USUAL)
