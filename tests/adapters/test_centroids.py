"""The start heeds centroids of the target's classes, and so does all that is made of it."""

import pytest
import torch

from adapters import AdaptConfig, StartConfig, adapt, adapt_many, load_adaptation
from adapters.prepare import prepare
from da_compose import probabilities
from da_compose.images import to_pixels
from da_compose.inference import predict_logits

ANY = AdaptConfig(start_config=StartConfig(least_informed=-1.0), steps=3, batch_size=8)


@pytest.mark.parametrize("strategy", ["chosen_start", "information_maximization"])
def test_its_classifiers_are_the_networks_and_centroids(
    make_backbone, make_pixels, tmp_path, strategy: str
):
    backbone, images = make_backbone(), make_pixels(60)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    found = adapt(backbone, images, strategy, config=ANY)
    assert found.notes["centroids"] is True and found.domain.heads is not None
    found.save(tmp_path / "a.safetensors")
    loaded = load_adaptation(tmp_path / "a.safetensors", backbone)
    assert torch.equal(loaded.predict_proba(images), found.predict_proba(images))
    assert loaded.class_names == backbone.class_names
    torch.testing.assert_close(
        found.model()(to_pixels(images)),
        found.predict_proba(images), rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    assert all(torch.equal(v, before[n]) for n, v in backbone.network.state_dict().items())


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("source_only", {}), ("batch_norm", {}), ("chosen_start", {"centroids": False}),
     ("chosen_start", {"start_config": StartConfig(least_informed=10.0)})],
)  # fmt: skip
def test_nothing_is_added_to_baselines_where_unwanted_or_where_images_mean_nothing(
    make_backbone, make_pixels, strategy: str, options
):
    found = adapt(make_backbone(), make_pixels(60), strategy, config=ANY, **options)
    assert found.notes["centroids"] is False and found.domain.heads is None


def test_learning_begins_at_the_predictions_with_centroids(make_backbone, make_pixels):
    ready = prepare(make_backbone(), make_pixels(60), "t", ANY)
    again = predict_logits(ready.backbone.network, ready.target, ready.checked)
    torch.testing.assert_close(ready.logits, again)
    plain = prepare(make_backbone(), make_pixels(60), "t", AdaptConfig(centroids=False))
    assert not torch.allclose(probabilities(plain.logits), probabilities(ready.logits))


def test_many_targets_at_once_have_each_its_own(make_backbone, make_pixels):
    backbone = make_backbone()
    images = {"one": make_pixels(60), "two": make_pixels(60, seed=1)}
    together = adapt_many(backbone, images, config=ANY, together=True)
    for name, given in images.items():
        alone = adapt(backbone, given, name=name, config=ANY)
        found = together[name].predict_proba(given)
        torch.testing.assert_close(found, alone.predict_proba(given), rtol=1e-4, atol=1e-4)


def test_an_adapted_domain_that_is_started_from_heeds_no_others(make_backbone, make_pixels):
    backbone, images = make_backbone(), make_pixels(60)
    first = adapt(backbone, images, "chosen_start", name="first", config=ANY)
    backbone.network.domains.add(first.domain)
    again = adapt(backbone, images, "chosen_start", start="first", config=ANY)
    assert first.notes["centroids"] is True and again.notes["centroids"] is False
    assert again.domain.heads is not None and first.domain.heads is not None
    found, expected = again.domain.heads.state_dict(), first.domain.heads.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
