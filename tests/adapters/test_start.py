"""Which start an adaptation takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adapters.start import INFORMED, NEAREST, USUAL, StartConfig, best_start, check_start
from da_compose import Backbone, CompositionalNetwork, NetworkConfig, probabilities
from da_compose.estimate import Estimator
from da_compose.evidence import another_view, evidence
from da_compose.inference import predict_logits
from da_compose.knowledge import Rehearsal
from da_compose.model.domain import POOLED
from da_compose.starts import MEAN, make_start

LEAST_COMPARED, SHARES = USUAL.least_compared, USUAL.shares
ANY = StartConfig(least_informed=-1.0)  # random weights know next to nothing


@pytest.fixture
def pooled(make_backbone) -> Backbone:
    """A backbone whose plain start is not the mean."""
    backbone = make_backbone()
    backbone.network.domains.add(backbone.network.new_domain(POOLED).requires_grad_(False))
    return backbone


def told(backbone: Backbone, images: np.ndarray) -> dict[tuple[str, float], torch.Tensor]:
    """Figures of every start that is compared, slowly."""
    found = {}
    for name in (POOLED, MEAN):
        start = make_start(backbone, name, "target", images)
        for share in SHARES:
            start.use_statistics(share)
            one, two = (
                probabilities(predict_logits(backbone.network, start.target, seen))
                for seen in (images, another_view(images))
            )
            found[name, share] = evidence(one, two)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_start_that_knows_most_of_two_views_is_chosen(pooled: Backbone, make_pixels, seed):
    images = make_pixels(LEAST_COMPARED, seed=seed)
    found = told(pooled, images)
    best = best_start(pooled, NEAREST, "target", images, LEAST_COMPARED, ANY)
    assert (best.name, best.share) == max(found, key=lambda one: found[one][INFORMED].item())


@pytest.mark.parametrize("clearly", [0.0, 1.0])
def test_of_a_rehearsed_backbone_a_start_that_is_expected_clearly_more_of_is_chosen(
    pooled: Backbone, make_pixels, clearly: float
):
    """Here mock targets were the better known the less two views of them had in common."""
    images = make_pixels(60)
    figures = torch.rand(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.arange(40) % 8, torch.full((40,), 60)
    rehearsal = Rehearsal(figures, 0.9 - 0.8 * figures[:, INFORMED], *counts)
    strange, config = replace(pooled, rehearsal=rehearsal), replace(ANY, clearly=clearly)
    best = best_start(strange, NEAREST, "target", images, 60, config)
    found, estimator = told(pooled, images), Estimator(rehearsal, 60)
    informed = max(found, key=lambda one: found[one][INFORMED].item())
    expected = max(found, key=lambda one: estimator(found[one]).accuracy)
    assert informed != expected
    assert (best.name, best.share) == (informed if clearly else expected)


def test_images_that_mean_nothing_are_left_to_source_only(pooled: Backbone, make_pixels):
    images, deaf = make_pixels(60), StartConfig(least_informed=1.0)
    found = best_start(pooled, NEAREST, "target", images, 60, deaf)
    assert (found.name, found.share) == (POOLED, 0.0)
    assert best_start(pooled, "left", "target", images, 60, deaf).share == 0.0


def test_the_choice_is_made_on_few_images_and_the_statistics_are_of_all(
    backbone: Backbone, make_pixels
):
    images = make_pixels(2 * LEAST_COMPARED)
    few = images[:LEAST_COMPARED]
    few = best_start(backbone, NEAREST, "target", few, LEAST_COMPARED, ANY)
    found = best_start(backbone, NEAREST, "target", images, LEAST_COMPARED, ANY)
    assert (found.name, found.share) == (few.name, few.share)
    expected = make_start(backbone, found.name, "target", images)
    assert torch.equal(found.target_statistics[0], expected.target_statistics[0])


@pytest.mark.parametrize("named", [NEAREST, "left"])
@pytest.mark.parametrize(("count", "searched"), [(LEAST_COMPARED - 1, 400), (60, 10)])
def test_a_few_images_compare_no_starts(
    backbone: Backbone, make_pixels, named: str, count: int, searched: int
):
    images = make_pixels(count)
    found = best_start(backbone, named, "target", images, searched)
    expected = make_start(backbone, MEAN if named == NEAREST else named, "target", images)
    expected.use_statistics(1.0)
    assert (found.name, found.share) == (expected.name, 1.0)
    assert torch.equal(found.target.mean, expected.target.mean)


def test_making_a_start_leaves_the_backbone_bit_identical(backbone: Backbone, make_pixels):
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    best_start(backbone, NEAREST, "target", make_pixels(6), searched=4)
    after = backbone.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_an_unknown_start_is_refused_with_the_choices(backbone: Backbone):
    with pytest.raises(ValueError, match="'mars'; choose from mean, nearest, left, middle, right"):
        check_start(backbone, "mars")


def test_a_backbone_that_knows_no_source_is_refused(tiny_config: NetworkConfig):
    backbone = Backbone(CompositionalNetwork(tiny_config), ("a", "b", "c"), {})
    with pytest.raises(ValueError, match="knows no source domain"):
        check_start(backbone, MEAN)


@pytest.mark.parametrize("part", ["heads", "batch norm"])
def test_sources_with_logits_or_batch_norm_of_their_own_are_no_start(make_backbone, part: str):
    """The network's own were not trained, and a new domain would get them."""
    backbone = make_backbone()
    network = backbone.network
    if part == "heads":
        network.own_heads(network.domains["left"], backbone.class_names)
    else:
        network.own_batch_norm(network.domains["left"])
    with pytest.raises(ValueError, match="left: logits or batch norm of their own"):
        check_start(backbone, MEAN)


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_a_task_with_classes_of_its_own_is_no_candidate_for_nearest(
    make_backbone, make_pixels, classes: tuple[str, ...]
):
    """Its predictions are of other classes, so they cannot be compared with the sources'."""
    backbone, images = make_backbone(), make_pixels(60)
    expected = best_start(backbone, NEAREST, "target", images, 60, ANY)
    task = backbone.network.new_domain("task")
    backbone.network.own_heads(task, classes)
    backbone.network.domains.add(task.requires_grad_(False))
    found = best_start(backbone, NEAREST, "target", images, 60, ANY)
    assert (found.name, found.share) == (expected.name, expected.share)


@pytest.mark.parametrize("shares", [(0.25,), (1.0, 0.75)])
def test_shares_that_are_tried_are_an_option(backbone: Backbone, make_pixels, shares):
    config = replace(ANY, shares=shares)
    images = make_pixels(60)
    assert best_start(backbone, "left", "target", images, 60, config).share in {0.0, *shares, 1.0}


def test_how_many_images_compare_starts_is_an_option(pooled: Backbone, make_pixels):
    images = make_pixels(10)
    assert best_start(pooled, NEAREST, "target", images, 10, ANY).share == 1.0
    few = best_start(pooled, NEAREST, "target", images, 10, replace(ANY, least_compared=10))
    found = told(pooled, images)
    assert (few.name, few.share) == max(found, key=lambda one: found[one][INFORMED].item())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shares": ()}, r"shares must be one or more from 0 to 1, got \(\)"),
        ({"shares": (0.0, 1.5)}, "shares must be one or more from 0 to 1"),
        ({"prior_images": -1}, "prior_images must be at least 0, got -1"),
        ({"least_compared": -1}, "least_compared must be at least 0, got -1"),
    ],
)
def test_wrong_limits_are_refused(options: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        StartConfig(**options)
