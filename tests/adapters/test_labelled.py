from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapters import STRATEGIES, Adaptation, MomentMatching, adapt
from adapters.config import UNLEARNED
from adapters.labelled import adapt_with_labels, fit_labelled, supervised
from adapters.parts import ADAPTED, unlock
from adapters.strategies.contract import AdaptationTask
from da_compose import Backbone, Domain
from da_compose.images import ImageSet, to_pixels
from da_compose.inference import predict_logits
from da_compose.model.mixture import MixtureWeights
from da_compose.starts import MEAN, make_start

FREE: dict[str, Any] = {"steps": 4, "batch_size": 8, "guard": False}


def last_xi(adaptation: Adaptation) -> Tensor:
    assert adaptation.last is not None
    assert isinstance(adaptation.last.mixture, MixtureWeights)
    return adaptation.last.mixture.xi


def cross_entropy(backbone: Backbone, domain: Domain, few: tuple[Any, Any]) -> float:
    logits = predict_logits(backbone.network, domain, few[0])
    labels = torch.as_tensor(few[1]).repeat(len(logits))
    return functional.cross_entropy(logits.flatten(0, 1), labels).item()


@pytest.fixture
def few(make_pixels) -> tuple[Any, Any]:
    return make_pixels(6, seed=4), np.arange(6) % 3


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("trains", ADAPTED)
def test_labels_reach_what_every_strategy_trains(
    backbone: Backbone, make_pixels, few, moving, monkeypatch, strategy: str, trains: str
):
    monkeypatch.setattr("adapters.strategies.adversarial.Adversarial.WARM_UP", 0)
    images, options = make_pixels(15), FREE | {"trains": trains, "steps": 2}
    without = adapt(backbone, images, strategy, **options).last
    found = adapt_with_labels(backbone, images, few, strategy, **options).last
    assert found is not None and without is not None
    one, two = found.state_dict(), without.state_dict()
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])}
    assert moved == moving[trains]


def test_enough_steps_learn_the_labels(backbone: Backbone, make_pixels, few):
    images, options = make_pixels(15), FREE | {"trains": "input_adapter", "steps": 30}
    without = adapt(backbone, images, **options).last
    found = adapt_with_labels(backbone, images, few, **options).last
    assert found is not None and without is not None
    assert cross_entropy(backbone, found, few) < cross_entropy(backbone, without, few)


def test_a_step_descends_the_sum_of_both_losses(backbone: Backbone, make_pixels, few):
    target = make_start(backbone, MEAN, "target", make_pixels(15)).target
    assert isinstance(target.mixture, MixtureWeights)
    xi = target.mixture.xi
    xi.requires_grad_(True)
    logits = backbone.network(to_pixels(few[0]), target)
    expected = xi.square().sum()
    for head in logits:
        expected = expected + functional.cross_entropy(head, torch.from_numpy(few[1])) / 2
    (gradient,) = torch.autograd.grad(expected, xi)
    optimizer = torch.optim.SGD([xi], lr=0.5)
    task = AdaptationTask(backbone, target, [xi], optimizer, 8, torch.Generator())
    task = task.adding(partial(supervised, ImageSet(*few)))
    start = xi.detach().clone()
    task.descend(xi.square().sum())
    torch.testing.assert_close(xi.detach(), start - 0.5 * gradient)


def test_the_result_says_how_many_labels_were_used(backbone: Backbone, make_pixels, few):
    images = make_pixels(15)
    assert adapt_with_labels(backbone, images, few, **FREE).notes["labels"] == 6
    assert "labels" not in adapt(backbone, images, **FREE).notes


def test_auto_is_refused(backbone: Backbone, make_pixels, few):
    with pytest.raises(ValueError, match="auto tries strategies without labels; name one"):
        adapt_with_labels(backbone, make_pixels(8), few, "auto", steps=1)


def test_other_labels_give_another_result(backbone: Backbone, make_pixels, few):
    images = make_pixels(15)
    right = last_xi(adapt_with_labels(backbone, images, few, **FREE))
    again = last_xi(adapt_with_labels(backbone, images, (few[0], few[1].tolist()), **FREE))
    wrong = last_xi(adapt_with_labels(backbone, images, (few[0], (few[1] + 1) % 3), **FREE))
    assert torch.equal(right, again)
    assert not torch.equal(right, wrong)


def test_more_labels_than_a_batch_are_drawn_from(backbone: Backbone, make_pixels):
    many = make_pixels(30, colour=False, seed=4), torch.arange(30) % 3
    found = adapt_with_labels(backbone, make_pixels(15), many, **FREE)
    assert found.notes["labels"] == 30


def test_the_backbone_is_left_bit_identical(backbone: Backbone, make_pixels, few):
    before = backbone.fingerprint
    adapt_with_labels(backbone, make_pixels(15), few, **FREE)
    assert backbone.fingerprint == before


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([0, 1, 2, 0, 1, 3], r"classes from 0 to 2, got \[3\]"),
        ([0, 1, -1, 0, 1, -2], r"classes from 0 to 2, got \[-2, -1\]"),
        ([0.0] * 6, "integers of shape .* got float64"),
        ([[0]] * 6, r"one an image, got int64 of shape \(6, 1\)"),
        ([0, 1], "as many labels as images .* got 6 images and 2 labels"),
        ([], "integers of shape"),
    ],
)
def test_wrong_labels_are_refused(backbone: Backbone, make_pixels, few, labels, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        adapt_with_labels(backbone, make_pixels(4), (few[0], labels), **FREE)


@pytest.mark.parametrize("strategy", UNLEARNED)
def test_a_strategy_that_learns_nothing_is_refused(backbone, make_pixels, few, strategy: str):
    with pytest.raises(ValueError, match=f"{strategy} learns nothing"):
        adapt_with_labels(backbone, make_pixels(4), few, strategy)


def test_a_strategy_with_options_takes_labels(backbone: Backbone, make_pixels, few):
    images, strategy = make_pixels(15), MomentMatching(moments=1)
    found = adapt_with_labels(backbone, images, few, strategy, **FREE)
    assert found.notes["labels"] == 6
    assert found.notes["strategy_options"] == {"moments": 1, "weight": 1.0}
    assert not torch.equal(last_xi(found), last_xi(adapt(backbone, images, strategy, **FREE)))


def test_a_bound_by_labels_descends_their_cross_entropy(backbone: Backbone, make_pixels, few):
    target = make_start(backbone, MEAN, "target", make_pixels(15)).target
    trained = unlock(backbone.network, target, "mixture_weights")
    before, fingerprint = cross_entropy(backbone, target, few), backbone.fingerprint
    options = {"steps": 30, "rate": 0.1, "generator": torch.Generator().manual_seed(0)}
    fit_labelled(backbone.network, target, trained, ImageSet(*few), **options)
    assert cross_entropy(backbone, target, few) < before
    assert backbone.fingerprint == fingerprint
