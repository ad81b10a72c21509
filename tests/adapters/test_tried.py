"""Nothing is predicted twice on the way from images to an adaptation."""

from importlib import import_module
from typing import Any

import pytest
import torch

from adapters import adapt
from adapters.start import Tried

PLACES = ("start", "loop", "adapt")


@pytest.mark.parametrize("strategy", ["source_only", "chosen_start", "information_maximization"])
def test_each_model_predicts_the_checked_images_once(
    backbone, make_pixels, monkeypatch, strategy: str
):
    seen = []
    for place in PLACES:
        module = import_module(f"adapters.{place}")
        whole = module.predict_logits

        def counted(network: Any, domain: Any, images: Any, whole=whole) -> torch.Tensor:
            seen.append(len(images))
            return whole(network, domain, images)

        monkeypatch.setattr(module, "predict_logits", counted)
    images = make_pixels(60)
    found = adapt(backbone, images, strategy, steps=4, batch_size=8, check_every=2)
    starts = 3 * (1 + len(backbone.network.domains.names))  # three blends of the mean and of each
    learned = 2 + 1  # checks after the start's, then the share that is kept
    expected = {"source_only": 2, "chosen_start": starts}.get(strategy, starts + learned)
    assert seen == [60] * expected
    assert set(found.scores) == {"source_only", "batch_norm", "start", "adapted"}


def test_a_start_is_made_once_and_goes_to_the_blend_that_is_asked_for(backbone, make_pixels):
    tried = Tried(backbone, "target", make_pixels(60), import_module("adapters.start").USUAL)
    one, two = tried.logits("mean", 0.0), tried.logits("mean", 1.0)
    assert not torch.equal(one, two)
    assert torch.equal(tried.logits("mean", 0.0), one)
    assert tried.start("mean", 0.5) is tried.start("mean", 1.0)
    assert tried.on_first(60) is tried and len(tried.on_first(10).images) == 10
