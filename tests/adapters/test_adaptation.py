from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt, adapt_many, load_adaptation
from adapters.parts import ADAPTED
from da_compose import Backbone, save_adapter

QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2}


@pytest.mark.parametrize("trains", ADAPTED)
@pytest.mark.parametrize("strategy", ["batch_norm", "information_maximization"])
def test_a_saved_adaptation_predicts_the_same(
    backbone: Backbone, make_pixels, tmp_path: Path, strategy: str, trains: str
):
    images = make_pixels(15)
    made = adapt(backbone, images, strategy, name="site-7", trains=trains, **QUICK)
    made.save(tmp_path / "site-7.safetensors")
    loaded = load_adaptation(tmp_path / "site-7.safetensors", backbone)
    assert loaded.domain.name == "site-7"
    assert (loaded.notes, loaded.learned_parameters) == (made.notes, made.learned_parameters)
    expected = made.predict_proba(images)
    assert torch.equal(loaded.predict_proba(images), expected)
    one, two = made.domain.state_dict(), loaded.domain.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_an_adaptation_of_another_backbone_is_refused(make_backbone, make_pixels, tmp_path: Path):
    adapt(make_backbone(), make_pixels(4), **QUICK).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="belongs to backbone"):
        load_adaptation(tmp_path / "a.safetensors", make_backbone(seed=1))


def test_the_path_of_a_backbone_is_no_backbone(make_pixels):
    for wrong in (
        lambda path: adapt(path, make_pixels(4)),
        lambda path: adapt_many(path, {"a": make_pixels(4)}),
        lambda path: load_adaptation("a.safetensors", path),
    ):
        with pytest.raises(ValueError, match=r"expected a backbone, as load_backbone.*got a str"):
            wrong("backbone.safetensors")


def test_an_adapter_without_notes_is_loaded(backbone: Backbone, make_pixels, tmp_path: Path):
    made = adapt(backbone, make_pixels(4), "batch_norm")
    save_adapter(tmp_path / "a.safetensors", backbone, made.domain, {})
    loaded = load_adaptation(tmp_path / "a.safetensors", backbone)
    assert torch.equal(loaded.domain.mean, made.domain.mean)


@pytest.mark.parametrize("trains", ADAPTED)
def test_a_prediction_depends_on_one_image_alone(backbone, make_pixels, trains: str):
    made = adapt(backbone, make_pixels(15), trains=trains, **QUICK)
    images = make_pixels(40, seed=5)
    together = made.predict_proba(images)
    for position in range(0, 40, 7):
        alone = made.predict_proba(images[position : position + 1])
        torch.testing.assert_close(alone[0], together[position], rtol=0, atol=1e-6)
    backward = made.predict_proba(images[::-1])
    torch.testing.assert_close(backward.flip(0), together, rtol=0, atol=1e-6)


def test_predictions_are_the_most_probable_classes(backbone: Backbone, make_pixels):
    made = adapt(backbone, make_pixels(15), **QUICK)
    images = make_pixels(12, seed=5)
    table = made.predict_proba(images)
    labels = made.predict(images)
    torch.testing.assert_close(table.sum(dim=1), torch.ones(12))
    assert labels.tolist() == table.argmax(dim=1).tolist()


def test_images_of_another_pixel_range_are_said_once(backbone, make_pixels) -> None:
    far = make_pixels(20) // 8 + 200
    with pytest.warns(UserWarning, match=r"from 200 to 231 .* scaled alike") as caught:
        adapted = adapt(backbone, far, "batch_norm")
    with pytest.warns(UserWarning, match="scaled alike") as again:
        adapted.update(far)
    assert len(caught) == len(again) == 1


def test_a_wrong_name_is_refused_before_images_are_read(backbone) -> None:
    with pytest.raises(ValueError, match="domain name 'two words'"):
        adapt(backbone, "nowhere", name="two words")
