"""Nothing is predicted twice on the way from images to an adaptation."""

from importlib import import_module
from typing import Any

import pytest
import torch

from adapters import adapt

PLACES = {
    "da_compose.starts": "embed",
    "adapters.loop": "predict_logits",
    "adapters.adapt": "predict_logits",
}


@pytest.mark.parametrize("strategy", ["source_only", "chosen_start", "information_maximization"])
def test_each_model_predicts_the_checked_images_once(
    backbone, make_pixels, monkeypatch, strategy: str
):
    seen = []
    for place, name in PLACES.items():
        module = import_module(place)
        whole = getattr(module, name)

        def counted(network: Any, domain: Any, images: Any, whole=whole) -> torch.Tensor:
            seen.append(len(images))
            return whole(network, domain, images)

        monkeypatch.setattr(module, name, counted)
    images = make_pixels(60)
    found = adapt(backbone, images, strategy, steps=4, batch_size=8, check_every=2)
    starts = 2 * 3  # three blends of the mean, in two views
    learned = 2 + 1  # checks after the start's, then the share that is kept
    expected = {"source_only": 4, "chosen_start": starts}.get(strategy, starts + learned)
    assert seen == [60] * expected
    assert set(found.scores) == {"source_only", "batch_norm", "start", "adapted"}
