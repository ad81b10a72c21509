"""What the caller has switched on in torch changes no result, and stays as it was."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from adapters import Adaptation, adapt, adapt_many, adapt_with_labels, load_adaptation
from da_compose import load_backbone
from da_compose.reading import read_images

Context = Callable[[], AbstractContextManager[Any]]
CONTEXTS: dict[str, Context] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu"),
}
QUICK: dict[str, Any] = {"steps": 3, "batch_size": 8, "prior_images": 0, "guard": False}
every_context = pytest.mark.parametrize("context", CONTEXTS)


def same(left: Adaptation, right: Adaptation) -> bool:
    one, two = left.domain.state_dict(), right.domain.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@every_context
def test_adapting_predicting_and_following_are_as_without(backbone, make_pixels, context: str):
    images, later = make_pixels(20), make_pixels(12, seed=4)
    plain = adapt(backbone, images, **QUICK)
    with CONTEXTS[context]():
        found = adapt(backbone, images, **QUICK)
        probabilities = found.predict_proba(later)
        model = found.model()
        (each,) = adapt_many(backbone, {"target": images}, **QUICK).values()
        assert torch.is_grad_enabled() == (context == "autocast")
        assert torch.is_inference_mode_enabled() == (context == "inference_mode")
        assert torch.is_autocast_enabled("cpu") == (context == "autocast")
    assert same(found, plain) and same(each, plain)
    assert torch.equal(probabilities, plain.predict_proba(later))
    assert probabilities.dtype == torch.float32
    pixels = torch.rand(2, 3, *images.shape[1:3])
    torch.testing.assert_close(model(pixels), plain.model()(pixels))
    plain.update(later, steps=1)
    with CONTEXTS[context]():
        found.update(later, steps=1)
    assert same(found, plain)


@every_context
def test_what_is_loaded_can_be_adapted_and_exported(
    backbone, make_pixels, tmp_path: Path, context: str
):
    images, labels = make_pixels(20), np.arange(20) % backbone.network.config.num_classes
    backbone.save(tmp_path / "backbone")
    adapt(backbone, images, "batch_norm").save(tmp_path / "adapter")
    with CONTEXTS[context]():
        loaded = load_backbone(tmp_path / "backbone")
        adaptation = load_adaptation(tmp_path / "adapter", loaded)
        assert adaptation.export(tmp_path / "target.pt2") < 1e-5
    assert same(adapt(loaded, images, **QUICK), adapt(backbone, images, **QUICK))
    adaptation.update(images, steps=1)
    program = torch.export.load(tmp_path / "target.pt2").module()
    pixels = torch.rand(1, 3, *images.shape[1:3])
    assert program(pixels).dtype == torch.float32
    with CONTEXTS[context]():
        labelled = adapt_with_labels(loaded, images, (images[:4], labels[:4]), **QUICK)
    assert same(labelled, adapt_with_labels(loaded, images, (images[:4], labels[:4]), **QUICK))


def test_a_precision_is_of_its_own_thread(backbone):
    network, seen = backbone.network, []
    with network.computing(torch.bfloat16):
        other = Thread(target=lambda: seen.append(network.block_precision))
        other.start()
        other.join()
        assert network.block_precision == torch.bfloat16
    assert seen == [None] and network.block_precision is None


def test_pictures_that_are_read_at_once_leave_the_filters_of_warnings(tmp_path: Path):
    for number in range(6):
        Image.new("RGB", (300, 300), (40 * number, 90, 90)).save(tmp_path / f"{number}.png")
    before = list(warnings.filters)
    readers = [Thread(target=read_images, args=(tmp_path, 8)) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert list(warnings.filters) == before


def test_a_compiled_network_is_the_same_backbone(backbone):
    compiled = replace(backbone, network=cast(Any, torch.compile(backbone.network)))
    assert compiled.fingerprint == backbone.fingerprint
