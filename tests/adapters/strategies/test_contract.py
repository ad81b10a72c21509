"""The contract of strategies, kept by every one of the table that learns."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.parts import ADAPTED, unlock
from adapters.strategies import (
    STRATEGIES,
    Adversarial,
    ClassifierDiscrepancy,
    InformationMaximization,
    MomentMatching,
)
from adapters.strategies.contract import AdaptationTask, begun, rate_of, warm_up_of
from adapters.strategies.losses import discrepancy, information, moment_distance, moments
from da_compose import PRESETS, Backbone, Domain, NetworkConfig, probabilities
from da_compose.images import to_pixels
from da_compose.starts import MEAN, make_start

NETWORKS = [
    ("compositional", "mixture_weights"),
    ("compositional", "input_adapter"),
    ("compositional", "batch_norm"),
    ("unshared", "input_adapter"),
    ("unshared", "batch_norm"),
]
MOST_STEPS = 200  # a strategy may warm up before it moves the target

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_network = pytest.mark.parametrize(("kind", "trains"), NETWORKS)


@pytest.fixture
def of_kind(backbone: Backbone, unshared: Backbone) -> dict[str, Backbone]:
    return {"compositional": backbone, "unshared": unshared}


def snapshot(backbone: Backbone) -> dict[str, Tensor]:
    """Every tensor of a backbone: weights, its domains' xi and statistics, knowledge."""
    tensors = {f"network.{k}": v.clone() for k, v in backbone.network.state_dict().items()}
    tensors["first_xi"] = backbone.network.get_buffer("first_xi").clone()
    for name, known in backbone.knowledge.items():
        for part in ("first", "second", "block_features", "embeddings", "labels"):
            tensors[f"{name}.{part}"] = getattr(known, part).clone()
    return tensors


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def private(target: Domain) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in target.state_dict().items()}


def test_the_cases_cover_everything_that_may_be_trained():
    assert {trains for _, trains in NETWORKS} == set(ADAPTED)


@every_strategy
@every_network
def test_a_step_returns_finite_figures(of_kind, take_steps, strategy: str, kind: str, trains: str):
    _, history = take_steps(of_kind[kind], strategy, trains, steps=3)
    assert len(history) == 3
    for figures in history:
        assert figures
        assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())


@every_strategy
@every_network
def test_only_the_trained_parameters_of_the_target_move(
    of_kind, make_pixels, take_steps, strategy: str, kind: str, trains: str
):
    backbone = of_kind[kind]
    images = make_pixels(20, seed=9)
    start = make_start(backbone, MEAN, "target", images).target
    trained = {id(parameter) for parameter in unlock(backbone.network, start, trains)}
    moving = {name for name, value in start.named_parameters() if id(value) in trained}
    before, kept = snapshot(backbone), private(start)

    def all_moved(target: Domain) -> bool:
        state = target.state_dict()
        return all(not torch.equal(state[name], kept[name]) for name in moving)

    target, _ = take_steps(
        backbone, strategy, trains, images=images, steps=MOST_STEPS, until=all_moved
    )
    assert all_moved(target)
    fixed = kept.keys() - moving
    assert {"mean", "var"} <= fixed
    after = target.state_dict()
    assert all(torch.equal(after[name], kept[name]) for name in fixed)
    assert same(snapshot(backbone), before)


@every_strategy
@every_network
def test_no_gradient_is_left_on_the_backbone(
    of_kind, take_steps, strategy: str, kind: str, trains: str
):
    backbone = of_kind[kind]
    take_steps(backbone, strategy, trains)
    assert all(p.grad is None and not p.requires_grad for p in backbone.network.parameters())
    assert not any(module.training for module in backbone.network.modules())


@every_strategy
def test_the_same_seed_gives_the_same_result_bit_for_bit(
    backbone: Backbone, take_steps, strategy: str
):
    one, first = take_steps(backbone, strategy, "mixture_weights", steps=22, seed=5)
    torch.rand(3)  # the global generator plays no part
    two, second = take_steps(backbone, strategy, "mixture_weights", steps=22, seed=5)
    assert first == second
    assert same(private(one), private(two))


@every_strategy
def test_a_step_draws_nothing_from_the_global_generator(backbone, take_steps, strategy: str):
    before = torch.get_rng_state()
    take_steps(backbone, strategy)
    assert torch.equal(torch.get_rng_state(), before)


@every_strategy
@every_network
@pytest.mark.parametrize(
    ("count", "batch_size", "colour"), [(1, 1, True), (1, 30, False), (5, 2, False), (5, 30, True)]
)
def test_any_size_and_colour_of_target_and_batch_works(
    of_kind, make_pixels, take_steps, strategy, kind, trains, count, batch_size, colour
):
    images = make_pixels(count, colour=colour)
    target, history = take_steps(
        of_kind[kind], strategy, trains, images=images, steps=2, batch_size=batch_size
    )
    assert all(math.isfinite(value) for figures in history for value in figures.values())
    assert all(value.isfinite().all() for value in target.state_dict().values())


@every_strategy
def test_one_source_is_enough(make_backbone, take_steps, strategy: str):
    _, history = take_steps(make_backbone(sources=["only"]), strategy)
    assert all(math.isfinite(value) for figures in history for value in figures.values())


@every_strategy
def test_a_source_without_some_class_works(make_backbone, take_steps, strategy: str):
    backbone = make_backbone()
    known = backbone.knowledge["left"]
    kept = known.labels != 1
    backbone.knowledge["left"] = type(known)(
        known.first, known.second, known.block_features[kept], known.embeddings[kept],
        known.labels[kept], known.num_images,
    )  # fmt: skip
    _, history = take_steps(backbone, strategy)
    assert all(math.isfinite(value) for figures in history for value in figures.values())


@every_strategy
def test_a_strategy_states_its_learning_rate(strategy: str):
    assert {"RATE", "WARM_UP"} <= vars(STRATEGIES[strategy]).keys()
    assert rate_of(STRATEGIES[strategy]()) > 0


@pytest.mark.parametrize(
    ("kind", "trains", "count"),
    [("compositional", "mixture_weights", 64), ("unshared", "input_adapter", 1224)],
)
def test_the_digits_network_learns_as_many_numbers_as_the_paper(
    make_backbone, make_pixels, kind: str, trains: str, count: int
):
    config = NetworkConfig(image_size=8)  # the number of weights does not depend on it
    config = config if kind == "compositional" else config.unshared()
    backbone = make_backbone(config, sources=["only"])
    target = make_start(backbone, MEAN, "target", make_pixels(2)).target
    trained = unlock(backbone.network, target, trains)
    assert sum(parameter.numel() for parameter in trained) == count
    assert PRESETS["small"].channels == config.channels


def test_the_input_adapter_that_is_trained_is_a_copy(backbone: Backbone, make_pixels):
    target = make_start(backbone, MEAN, "target", make_pixels(2)).target
    trained = unlock(backbone.network, target, "input_adapter")
    shared = {parameter.data_ptr() for parameter in backbone.network.parameters()}
    assert trained and not any(parameter.data_ptr() in shared for parameter in trained)
    own = [parameter.shape for parameter in backbone.network.input_adapter.parameters()]
    assert [parameter.shape for parameter in trained] == own


def test_mixture_weights_of_an_unshared_network_are_refused(unshared: Backbone, make_pixels):
    target = make_start(unshared, MEAN, "target", make_pixels(2)).target
    with pytest.raises(ValueError, match=r'unshared.*use trains="input_adapter"'):
        unlock(unshared.network, target, "mixture_weights")


def make_task(backbone: Backbone, images, batch_size: int = 9) -> AdaptationTask:
    target = make_start(backbone, MEAN, "target", images).target
    trained = unlock(backbone.network, target, "mixture_weights")
    optimizer = torch.optim.SGD(trained, lr=0.5)
    generator = torch.Generator().manual_seed(0)
    return AdaptationTask(backbone, target, trained, optimizer, batch_size, generator)


def test_descend_takes_one_step_along_the_gradient(backbone: Backbone, make_pixels):
    task = make_task(backbone, make_pixels(9))
    (xi,) = task.trained
    before = xi.detach().clone()
    for _ in range(2):  # gradients of the first step must not add to those of the second
        task.descend((xi * 3).sum())
    torch.testing.assert_close(xi.detach(), before - 2 * 0.5 * 3)


def test_source_moments_are_the_stored_ones(backbone: Backbone, make_pixels):
    found = make_task(backbone, make_pixels(9)).source_moments()
    for (first, second), known in zip(found, backbone.knowledge.values(), strict=True):
        assert torch.equal(first, known.first) and torch.equal(second, known.second)


@pytest.mark.parametrize("features", ["block_features", "embeddings"])
def test_a_source_sample_is_an_equal_share_of_every_source_with_its_labels(
    backbone: Backbone, make_pixels, features: str
):
    sample, labels = make_task(backbone, make_pixels(9)).source_sample(features)
    assert len(sample) == len(labels) == 9
    assert sample.dtype == torch.float32
    parts = zip(sample.split(3), labels.split(3), backbone.knowledge.values(), strict=True)
    for rows, classes, known in parts:
        stored = getattr(known, features).float()
        for row, label in zip(rows, classes, strict=True):
            matches = (stored == row).flatten(1).all(dim=1)
            assert label in known.labels[matches]


def test_a_batch_smaller_than_the_sources_still_samples_each(backbone: Backbone, make_pixels):
    sample, _ = make_task(backbone, make_pixels(9), batch_size=1).source_sample("embeddings")
    assert len(sample) == len(backbone.knowledge)


def test_moment_matching_reports_eq_1_and_lowers_it(backbone, make_pixels, take_steps):
    images = make_pixels(30)
    task = make_task(backbone, images)
    _, embedding = backbone.network.features(to_pixels(images), task.target)
    start = moment_distance(moments(embedding), task.source_moments())
    target, _ = take_steps(backbone, "moment_matching", images=images, steps=60, batch_size=30)
    _, embedding = backbone.network.features(to_pixels(images), target)
    assert moment_distance(moments(embedding), task.source_moments()) < start


def test_information_maximization_raises_the_information(backbone, make_pixels, take_steps):
    images = make_pixels(30)

    def told(target: Domain) -> float:
        logits = backbone.network(to_pixels(images), target)
        return float(information(probabilities(logits)).detach())

    start = told(make_task(backbone, images).target)
    target, _ = take_steps(backbone, "information_maximization", images=images, steps=40)
    assert told(target) > start


def test_classifier_discrepancy_leaves_the_heads_to_the_backbone(backbone, make_pixels, take_steps):
    heads = [value.clone() for value in backbone.network.heads.parameters()]
    target, history = take_steps(backbone, "classifier_discrepancy", images=make_pixels(30))
    assert target.heads is None
    found = backbone.network.heads.parameters()
    assert all(torch.equal(one, two) for one, two in zip(heads, found, strict=True))
    assert {"moment_distance", "discrepancy"} <= history[-1].keys()


def test_step_c_lowers_the_disagreement_of_fixed_heads(backbone: Backbone, make_pixels):
    """What step C does on its own: the target's xi moves, the heads do not."""
    images = make_pixels(30)
    task = make_task(backbone, images)
    inputs = to_pixels(images)
    found = []
    for _ in range(20):
        disagreement = discrepancy(backbone.network(inputs, task.target))
        found.append(disagreement.item())
        task.descend(disagreement)
    assert found[-1] < found[0]


@every_strategy
def test_a_given_strategy_is_left_as_it_is(backbone: Backbone, make_pixels, strategy: str):
    """Its copies step, each on a task of its own."""
    given = STRATEGIES[strategy]()
    before = dict(vars(given))
    images = make_pixels(9)
    tasks = [make_task(backbone, images) for _ in range(2)]
    one, two = (begun(given, task) for task in tasks)
    start = private(tasks[0].target)
    for _ in range(warm_up_of(one) + 1):
        one.step(to_pixels(images))
    assert vars(given) == before
    assert one is not given and two is not given and type(one) is type(given)
    assert not same(private(tasks[0].target), start)
    assert same(private(tasks[1].target), start)


def test_a_strategy_may_lack_a_rate_and_a_warm_up():
    class Plain:
        def prepare(self, task: AdaptationTask) -> None: ...

        def step(self, images: Tensor) -> dict[str, Tensor]:
            return {}

    class Stated(Plain):
        RATE, WARM_UP = 0.5, 3

    plain: Any = Plain()
    stated: Any = Stated()
    assert (rate_of(plain), warm_up_of(plain)) == (1.0, 0)
    assert (rate_of(stated), warm_up_of(stated)) == (0.5, 3)


def begun_on(backbone: Backbone, images, strategy: Any) -> tuple[AdaptationTask, Any]:
    task = make_task(backbone, images)
    return task, begun(strategy, task)


def test_moment_matching_of_one_moment_descends_the_first_alone(backbone: Backbone, make_pixels):
    images = make_pixels(9)
    task, made = begun_on(backbone, images, MomentMatching(moments=1, weight=3.0))
    (xi,) = task.trained
    start = xi.detach().clone()
    _, embedding = backbone.network.features(to_pixels(images), task.target)
    sources = torch.stack([known.first for known in backbone.knowledge.values()])
    expected = (embedding.mean(dim=0) - sources).norm(dim=1).mean()
    (gradient,) = torch.autograd.grad(expected, xi)
    figures = made.step(to_pixels(images))
    torch.testing.assert_close(figures["moment_distance"], expected.detach())
    torch.testing.assert_close(xi.detach(), start - 0.5 * 3.0 * gradient)


@pytest.mark.parametrize("equal_classes", [True, False])
def test_information_maximization_expects_what_it_is_told(
    backbone: Backbone, make_pixels, equal_classes: bool
):
    images, expected = make_pixels(9), torch.tensor([0.7, 0.2, 0.1])
    task = replace(make_task(backbone, images), expected=expected)
    made = begun(InformationMaximization(equal_classes=equal_classes), task)
    predictions = probabilities(backbone.network(to_pixels(images), task.target)).detach()
    found = made.step(to_pixels(images))["information"]
    wanted = information(predictions, None if equal_classes else expected)
    torch.testing.assert_close(found, wanted)


def test_classifier_discrepancy_takes_the_steps_it_is_told(backbone, make_pixels, monkeypatch):
    """Step A, and so many of step C."""
    descents = []
    descend = AdaptationTask.descend
    monkeypatch.setattr(
        AdaptationTask, "descend", lambda task, loss: descents.append(1) or descend(task, loss)
    )
    images = make_pixels(9)
    _, made = begun_on(backbone, images, ClassifierDiscrepancy(feature_steps=3))
    made.step(to_pixels(images))
    assert len(descents) == 1 + 3


@pytest.mark.parametrize(
    ("strategy", "options", "complaint"),
    [
        (MomentMatching, {"moments": 3}, "moments must be 1 or 2"),
        (MomentMatching, {"weight": 0.0}, r"weight must be above 0, got 0\.0"),
        (ClassifierDiscrepancy, {"moment_weight": -1.0}, "moment_weight must be at least 0"),
        (ClassifierDiscrepancy, {"critic_rate": 0.0}, "critic_rate must be above 0"),
        (ClassifierDiscrepancy, {"feature_steps": 0}, "feature_steps must be above 0"),
        (Adversarial, {"discriminator_rate": -1.0}, "discriminator_rate must be above 0"),
        (Adversarial, {"smoothing": 0.5}, "smoothing must be at least 0 and below 0.5"),
        (Adversarial, {"smoothing": float("nan")}, "smoothing must be at least 0"),
    ],
)
def test_wrong_options_of_a_strategy_are_refused(strategy: Any, options, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        strategy(**options)
