"""`pretrain` from folders, archives and arrays; what it resumes and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from da_compose import Backbone, Recipe, load_backbone, pretrain
from da_compose.model.config import NetworkConfig
from da_compose.sources import read_sources
from da_compose.training import pretrained
from da_compose.training.pretrain import BACKBONE
from da_compose.training.run import STATE
from da_compose.training.trainer import PretrainConfig, Pretrainer

TINY = Recipe(
    pretraining=PretrainConfig(steps=4, batch_size=6, statistics_batches=2),
    network=NetworkConfig(
        num_layers=2, num_templates=2, channels=4, image_size=8, patch_size=4, hidden=6, embedding=5
    ),
)


def pictures(folder: Path, *classes: str, count: int = 3) -> Path:
    generator = np.random.default_rng(len(str(folder)))
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for picture in range(count):
            pixels = generator.integers(60 * number, 60 * number + 60, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{picture}.png")
    return folder


def arrays(count: int = 9, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, 8, 8), dtype=np.uint8), np.arange(count) % classes


def made(sources: dict[str, Any], out: Path, **options: Any) -> Backbone:
    options = {"recipe": TINY, "show_progress": False, "device": "cpu"} | options
    return pretrain(sources, out=out, **options)


@pytest.mark.parametrize(
    "kind",
    [torch.tensor, lambda labels: [*torch.tensor(labels)], lambda labels: pd.Series([*"abc"] * 3),
     lambda labels: np.array([*"abc"] * 3, dtype=object)],
)  # fmt: skip
def test_labels_may_lie_in_tensors_and_tables(kind) -> None:
    images, labels = arrays()
    found, _ = read_sources({"a": (images, kind(labels))}, 8)
    assert found["a"].labels.tolist() == labels.tolist()


def test_folders_archives_and_arrays_are_sources_alike(tmp_path: Path) -> None:
    images, labels = arrays()
    np.savez(tmp_path / "site-2.npz", images=images, labels=labels)
    sources = {
        "site-1": pictures(tmp_path / "site-1", "cat", "dog"),
        "site-2": tmp_path / "site-2.npz",
        "site-3": (images / 255, ["dog", "cat", "emu"] * 3),
    }
    backbone = made(sources, tmp_path / "out", class_names=["cat", "dog", "emu"])
    assert backbone.class_names == ("cat", "dog", "emu")
    assert list(backbone.knowledge) == list(sources)
    saved = load_backbone(tmp_path / "out" / BACKBONE)
    assert saved.fingerprint == backbone.fingerprint
    assert saved.notes["steps"] == 4 and set(saved.notes["data"]) == set(sources)
    assert not (tmp_path / "out" / STATE).exists()


def test_names_of_all_folders_are_the_classes_in_their_order(tmp_path: Path) -> None:
    sources = {
        "a": pictures(tmp_path / "a", "zebra", "ape"),
        "b": pictures(tmp_path / "b", "cow", "ape"),
    }
    data, names = read_sources(sources, 8)
    assert names == ("ape", "cow", "zebra")
    assert data["a"].labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert data["b"].labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_names_are_one_however_they_are_spelled_and_doubts_are_said(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    sources = {"a": pictures(tmp_path / "a", composed, "dog"), "b": (arrays(2)[0], [apart, "dog"])}
    assert read_sources(sources, 8)[1] == (composed, "dog")
    assert read_sources(sources, 8, [apart, "dog"])[1] == (composed, "dog")
    with pytest.warns(UserWarning, match="Dog and dog are read as different classes"):
        read_sources(sources | {"c": pictures(tmp_path / "c", "Dog")}, 8)
    with pytest.warns(UserWarning, match="no source has images of the classes 1"):
        read_sources({"a": (arrays(2)[0], [0, 2])}, 8)


def test_a_wrong_name_or_place_is_refused_before_sources_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="domain name 'site 7'"):
        made({"site 7": tmp_path / "nowhere"}, tmp_path)
    with pytest.raises(ValueError, match=r"expected sources by name.*; got a list"):
        pretrain(["scans/site-1"], out=tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="source 'a' is an empty text"):
        made({"a": ""}, tmp_path)
    with pytest.raises(OSError, match="too long"):
        made({"a": tmp_path / "nowhere"}, tmp_path / ("n" * 256))


def test_an_interrupted_call_goes_on_bit_for_bit(tmp_path: Path, monkeypatch) -> None:
    sources = {"a": arrays(), "b": arrays(12)}
    whole = made(sources, tmp_path / "whole")
    step = Pretrainer.step

    def interrupted(trainer: Pretrainer) -> dict[str, float]:
        if trainer.step_number == 2:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr("da_compose.training.run.SAVE_EVERY", 1)
    monkeypatch.setattr(Pretrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(sources, tmp_path / "cut")
    monkeypatch.setattr(Pretrainer, "step", step)
    changed = {"a": arrays(), "b": (arrays(12)[0][::-1], arrays(12)[1])}
    with pytest.raises(ValueError, match="saved with another content of sources"):
        made(changed, tmp_path / "cut")
    assert made(sources, tmp_path / "cut").fingerprint == whole.fingerprint


def test_what_is_finished_is_read_and_anything_else_is_refused(tmp_path: Path, monkeypatch) -> None:
    sources = {"a": arrays(), "b": arrays(12)}
    first = made(sources, tmp_path)
    monkeypatch.setattr(Pretrainer, "step", lambda _: pytest.fail("trained again"))
    assert made(sources, tmp_path).fingerprint == first.fingerprint
    with pytest.raises(ValueError, match="is finished and was made with another seed; delete it"):
        made(sources, tmp_path, seed=1)
    with pytest.raises(ValueError, match="another classes"):
        made(sources, tmp_path, class_names=["x", "y", "z"])
    with pytest.raises(ValueError, match="another data"):
        made({"a": arrays(), "b": arrays(15)}, tmp_path)


def test_size_and_steps_take_the_place_of_the_recipes(tmp_path: Path) -> None:
    """Also those of numpy, which no file could hold after all the work."""
    options: dict[str, Any] = {"image_size": np.int32(16), "steps": np.int64(1)}
    options |= {"seed": np.int64(3), "held_out": np.float32(0.25)}
    backbone = made({"a": arrays()}, tmp_path, **options)
    assert backbone.network.config.image_size == 16
    assert backbone.notes["steps"] == 1 and backbone.notes["seed"] == 3


@pytest.mark.parametrize(
    ("sources", "options", "complaint"),
    [
        ({}, {}, "at least one labelled source"),
        ({"a": arrays()[0]}, {}, "source 'a' is a ndarray, expected a folder"),
        ({"a": (arrays()[0], [0, 1])}, {}, "9 images and 2 labels"),
        ({"a": (arrays()[0], [0.5] * 9)}, {}, "whole numbers or names, one an image, got float64"),
        ({"a": arrays(), "b": (arrays()[0], ["x"] * 9)}, {}, r"class_names=\[\.\.\.\]"),
        ({"a": arrays()}, {"class_names": ["x", "y"]}, r"labels of a must be in 0\.\.1"),
        ({"a": (arrays()[0], ["x", "y", "z"] * 3)}, {"class_names": ["x", "y"]}, "a has classes z"),
        ({"a": arrays(classes=1)}, {}, "at least 2 classes, got 0"),
        ({"a": Path("nowhere")}, {}, "no folder at nowhere"),
        ({"two words": arrays()}, {}, "domain name 'two words'"),
        ([arrays()], {}, "expected sources by name"),
        ({"a": (arrays()[0], np.arange(9) * 10**9)}, {}, "labels go up to 8,000,000,000"),
        ({"a": arrays()}, {"class_names": {"x", "y", "z"}}, "class_names is a set, expected a li"),
        ({"a": arrays()}, {"steps": 0}, "steps must be at least 1, got 0"),
        ({"a": arrays()}, {"seed": 1.5}, r"seed must be an int, got 1\.5"),
        ({"a": arrays()}, {"device": "nowhere"}, "device 'nowhere' cannot be used here"),
    ],
)
def test_sources_that_do_not_fit_are_refused_in_words(
    tmp_path: Path, sources: dict[str, Any], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        made(sources, tmp_path / "out", **options)
    assert not (tmp_path / "out" / BACKBONE).exists()


def test_unknown_recipes_are_named_with_all_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe 'strongest'; choose from strong, strong-128"):
        pretrain({"a": arrays()}, out=tmp_path, recipe="strongest")


def test_a_recipe_of_ones_own_is_taken(tmp_path: Path) -> None:
    own = replace(TINY, network=replace(TINY.network, num_layers=3))
    backbone = pretrain({"a": arrays()}, out=tmp_path, recipe=own, show_progress=False)
    assert backbone.network.config.num_layers == 3
    with pytest.raises(ValueError, match="made with another recipe"):  # not the same network
        made({"a": arrays()}, tmp_path)


def test_pictures_are_learned_on_published_weights_where_they_are_at_hand(monkeypatch):
    monkeypatch.setattr(pretrained, "is_at_hand", lambda name: True)
    assert pretrained.usual_recipe() == pretrained.usual_recipe(64) == "lite0"
    assert pretrained.usual_recipe(63) == "strong"  # too small for them
    monkeypatch.setattr(pretrained, "is_at_hand", lambda name: False)
    with pytest.warns(UserWarning, match=r"trained from scratch.*pip install 'da-compose\[pict"):
        assert pretrained.usual_recipe() == "strong"
