"""What classifiers of single sources decide on pretrained networks: starts and estimates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters import StartConfig, adapt
from adapters.start import INFORMED, NEAREST, best_start
from da_compose import Backbone, DomainModel
from da_compose.estimate import by_agreement, unknown
from da_compose.evidence import evidence
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.source_heads import agreement, source_heads
from da_compose.starts import Tried, starts_to_compare
from tests.tiny_modules import CLASSES, SIZE, tiny_pretrained

ANY = StartConfig(least_informed=-1.0)  # random weights know next to nothing


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    network, data = tiny_pretrained("conv", 2), {}
    for number, name in enumerate(("left", "right")):
        domain = network.new_domain(name)
        domain.mean += 0.2 * number
        network.domains.add(domain)
        data[name] = ImageSet(pictures(30, number), np.arange(30) % CLASSES)
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Backbone(network, names, collect_knowledge(network, data))


def test_estimates_are_how_often_the_sources_agree(backbone: Backbone):
    images = pictures(60, 5)
    found = adapt(backbone, images, "batch_norm", start_config=ANY).estimates
    assert tuple(found) == ("source_only", "batch_norm", "start", "adapted")
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).numpy()
    tried = Tried(backbone, "target", images[order], 60)
    heads = source_heads(backbone.knowledge, CLASSES)
    for name, share in (("source_only", 0.0), ("batch_norm", 1.0)):
        agreed = agreement(heads, tried.embeddings(starts_to_compare(backbone)[0][0], share))
        assert found[name] == by_agreement(agreed, 60)
    assert found["adapted"] == found["start"] == found["batch_norm"]


def test_an_estimate_is_of_the_images_that_starts_are_compared_on(backbone: Backbone):
    images, config = pictures(60, 5), {"start_config": ANY, "start_images": 20}
    found = adapt(backbone, images, "source_only", **config).estimates["source_only"]
    assert found == by_agreement(found.accuracy, 20)


def test_of_a_model_that_tells_next_to_nothing_nothing_is_promised(backbone, monkeypatch):
    """AdaBN here, which takes all for one class, so that all classifiers agree."""
    images, plain = pictures(60, 5), evidence

    def figures(prediction, viewed):
        made = plain(prediction, viewed)
        made[INFORMED] = 0.01 if torch.equal(prediction, collapsed) else 0.5
        return made

    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).numpy()
    tried = Tried(backbone, "target", images[order], 60)
    collapsed = tried.prediction(starts_to_compare(backbone)[0][0], 1.0)
    monkeypatch.setattr("adapters.start.evidence", figures)
    estimates = adapt(backbone, images, "chosen_start").estimates
    assert estimates["batch_norm"] == unknown(CLASSES)
    assert estimates["source_only"] != unknown(CLASSES) != estimates["start"]


def test_one_source_alone_estimates_nothing(backbone: Backbone):
    (name, known), *_ = backbone.knowledge.items()
    alone = replace(backbone, knowledge={name: known})
    found = adapt(alone, pictures(60, 5), "chosen_start", start_config=ANY)
    assert found.estimates == {} and not DomainModel(alone, found.domain).is_calibrated


@pytest.mark.parametrize("clearly", [0.0, 1.0])
def test_a_start_on_which_the_sources_agree_clearly_more_is_chosen(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, clearly: float
):
    images = pictures(60, 5)
    tried = Tried(backbone, "target", images, 60)
    starts = starts_to_compare(backbone)
    informed = max(starts, key=lambda one: evidence(*tried.views(*one))[INFORMED].item())
    other = next(one for one in starts if one != informed)
    wanted = tried.embeddings(*other)
    monkeypatch.setattr(
        "da_compose.starts.agreement",
        lambda heads, embeddings: 0.6 if torch.equal(embeddings, wanted) else 0.5,
    )
    best = best_start(backbone, NEAREST, "target", images, 60, replace(ANY, clearly=clearly))
    assert (best.name, best.share) == (informed if clearly else other)
    least = evidence(*tried.views(*informed))[INFORMED].item()  # the other one tells less
    deaf = replace(ANY, clearly=clearly, least_informed=least)
    best = best_start(backbone, NEAREST, "target", images, 60, deaf)
    assert (best.name, best.share) == informed  # whatever its classifiers agree on


@pytest.mark.parametrize(
    ("count", "likeness", "said"), [(60, 0.5, True), (60, 0.9, None), (40, 0.5, None)]
)
def test_images_unlike_those_of_all_sources_mean_nothing(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, count, likeness, said
):
    """As another task does; fewer than starts are compared on do not tell."""
    monkeypatch.setattr(
        "da_compose.starts.likeness", lambda known, embeddings, frequencies: likeness
    )
    found = adapt(backbone, pictures(count, 5), "chosen_start", start_config=ANY)
    assert found.notes.get("meaningless") is said
    assert (found.estimate is None) == bool(said)
    if said:
        assert found.notes["target_share"] == 0.0 and not found.notes["centroids"]
    assert found.notes["likeness"] == (likeness if count >= ANY.least_compared else None)
