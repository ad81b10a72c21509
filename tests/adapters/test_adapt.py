import math
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from adapters import (
    STRATEGIES,
    Adaptation,
    AdaptationTask,
    AdaptConfig,
    MomentMatching,
    adapt,
)
from adapters.adapt import adapted, strategy_of
from adapters.config import CHOICES, UNLEARNED
from adapters.parts import ADAPTED, LEARNING_RATES, STEPS, unlock
from adapters.prepare import prepare
from adapters.start import USUAL, StartConfig
from adapters.strategies.losses import entropy
from da_compose import Backbone, probabilities
from da_compose.model.mixture import MixtureWeights
from da_compose.starts import MEAN, make_start
from da_compose.statistics import blend_statistics

QUICK: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2}


def content(adaptation: Adaptation) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in adaptation.domain.state_dict().items()}


def same(left: Adaptation, right: Adaptation) -> bool:
    one, two = content(left), content(right)
    return (
        one.keys() == two.keys()
        and all(torch.equal(one[name], two[name]) for name in one)
        and left.history == right.history
        and left.scores == right.scores
        and left.notes == right.notes
    )


class Pairs:
    """Images with labels, as a map-style data set."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Any, Any]:
        return self.images[position], self.labels[position]


class Untouchable:
    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("a label was looked at")


@pytest.mark.parametrize("strategy", CHOICES)
def test_labels_cannot_reach_adapt(backbone: Backbone, make_pixels, strategy: str):
    images = make_pixels(15)
    right = np.arange(15) % 3
    plain = adapt(backbone, images, strategy, **QUICK)
    for labels in (
        right,
        np.random.default_rng(0).permutation(right),
        -right,
        [Untouchable()] * 15,
    ):
        assert same(adapt(backbone, Pairs(images, labels), strategy, **QUICK), plain)
    for labels in (torch.from_numpy(right), torch.full((15,), 99)):
        loader = DataLoader(TensorDataset(torch.from_numpy(images), labels), batch_size=4)
        assert same(adapt(backbone, loader, strategy, **QUICK), plain)


@pytest.mark.parametrize("strategy", ["source_only", "batch_norm"])
@pytest.mark.parametrize("kind", ["backbone", "unshared"])
def test_baselines_learn_nothing(request, make_pixels, strategy: str, kind: str):
    backbone = request.getfixturevalue(kind)
    found = adapt(backbone, make_pixels(15), strategy)
    assert (found.learned_parameters, found.history) == (0, [])
    assert "kept_step" not in found.notes
    assert found.scores["adapted"] == found.scores["start"] == found.scores[strategy]
    if isinstance(found.domain.mixture, MixtureWeights):
        start = make_start(backbone, MEAN, "target", make_pixels(15)).target.mixture
        assert torch.equal(found.domain.mixture(), start())


def test_the_chosen_start_is_what_a_strategy_starts_from(backbone: Backbone, make_pixels):
    images = make_pixels(USUAL.least_compared)
    found = adapt(backbone, images, "chosen_start")
    assert (found.learned_parameters, found.history) == (0, [])
    assert "kept_step" not in found.notes
    assert found.scores["adapted"] == found.scores["start"]
    learned = adapt(backbone, images, **QUICK)
    for note in ("start", "target_share"):
        assert found.notes[note] == learned.notes[note]
    assert found.scores["start"] == learned.scores["start"]
    assert torch.equal(found.domain.mean, learned.domain.mean)


def test_source_only_has_the_sources_statistics_whatever_the_target(backbone, make_pixels):
    start = make_start(backbone, MEAN, "target", make_pixels(3))
    for images in (make_pixels(15), make_pixels(4, seed=8, colour=False)):
        domain = adapt(backbone, images, "source_only").domain
        assert torch.equal(domain.mean, start.source_statistics[0])
        assert torch.equal(domain.var, start.source_statistics[1])


def test_batch_norm_has_the_targets_own_statistics(backbone: Backbone, make_pixels):
    """Shrunk toward the source's as if it were `prior_images` more; see test_start.py."""
    images = make_pixels(15)
    domain = adapt(backbone, images, "batch_norm").domain
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0)).numpy()
    start = make_start(backbone, MEAN, "target", images[order])
    assert torch.equal(domain.mean, start.target_statistics[0])
    assert torch.equal(domain.var, start.target_statistics[1])
    assert not torch.equal(domain.mean, start.source_statistics[0])
    assert USUAL.prior_images > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_history_has_one_entry_a_step_with_finite_figures(backbone, make_pixels, strategy: str):
    found = adapt(backbone, make_pixels(15), strategy, steps=25, batch_size=8)
    assert [entry["step"] for entry in found.history] == list(range(1, 26))
    for entry in found.history:
        assert len(entry) > 2  # more than the step and the check
        assert all(math.isfinite(value) for value in entry.values())


@pytest.mark.parametrize("start", ["left", "middle", "right", "mean", "nearest"])
def test_start_by_name_mean_or_nearest(backbone: Backbone, make_pixels, start: str):
    found = adapt(backbone, make_pixels(15), start=start, **QUICK)
    names = {"mean", "left", "middle", "right"}
    assert found.notes["start"] in (names if start == "nearest" else {start})
    assert 0 <= found.notes["target_share"] <= 1


def test_an_adaptation_starts_from_its_start(backbone: Backbone, make_pixels):
    """With a learning rate near zero, the statistics and xi are those of the start."""
    images = make_pixels(15)
    found = adapt(backbone, images, start="left", learning_rate=1e-30, **QUICK)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0)).numpy()
    start = make_start(backbone, "left", "target", images[order])
    start.use_statistics(found.notes["target_share"])
    expected = start.target.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in content(found).items())


@pytest.mark.parametrize("trains", ADAPTED)
def test_what_is_trained_takes_its_own_number_of_steps(backbone, make_pixels, trains: str):
    images = make_pixels(9)
    assert len(adapt(backbone, images, trains=trains, batch_size=2).history) == STEPS[trains]
    assert len(adapt(backbone, images, trains=trains, batch_size=2, steps=3).history) == 3


def test_a_backbone_that_diverged_is_refused(backbone: Backbone, make_pixels):
    diverged = deepcopy(backbone)
    with torch.no_grad():
        next(diverged.network.input_adapter.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="predictions are not finite"):
        adapt(diverged, make_pixels(4), steps=1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "magic"}, "no strategy 'magic'; choose from source_only, batch_norm"),
        ({"strategy": "moment_match"}, "'moment_match', did you mean 'moment_matching'?"),
        ({"strategy": MomentMatching}, "strategy must be a name .* or an instance such as"),
        ({"strategy": 3}, "strategy must be a name .* or an instance such as Mom.*, got 3"),
        ({"strategy": SimpleNamespace(step=print)}, "with prepare and step, got namespace"),
        (
            {"trains": "heads"},
            "cannot train heads; choose from mixture_weights, input_adapter, batch",
        ),
        ({"trains": "all"}, "cannot train all; choose from mixture_weights, input_adapter, batch"),
        ({"start": "mars"}, "no start 'mars'; choose from mean, nearest, left, middle, right"),
        ({"start": "mars", "strategy": "batch_norm"}, "no start 'mars'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, r"steps must be an int, got 2\.5"),
        ({"seed": 1.0}, r"seed must be an int, got 1\.0"),
        ({"steps": True}, r"steps must be an int, got True"),
        ({"guard": "no"}, r"guard must be True or False, got 'no'"),
        ({"learning_rate": float("inf")}, r"learning_rate must be above 0, got inf"),
        ({"learning_rate": "0.1"}, r"learning_rate must be above 0, got '0.1'"),
        ({"name": "x" * 256}, r"at most 255 letters"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"check_every": 0}, "check_every must be at least 1"),
        ({"check_images": 0}, "check_images must be at least 1"),
        ({"start_images": 0}, "start_images must be at least 1"),
        ({"prior_images": -1}, "prior_images must be at least 0, got -1"),
        ({"prior_images": 0.5}, r"prior_images must be an int, got 0\.5"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"name": "two words"}, "domain name 'two words'"),
    ],
)
def test_wrong_options_are_refused_with_the_choices(
    backbone: Backbone, make_pixels, options: dict[str, Any], complaint: str
):
    with pytest.raises(ValueError, match=complaint):
        adapt(backbone, make_pixels(4), **options)


def test_an_unknown_option_is_refused_by_name(backbone: Backbone, make_pixels):
    with pytest.raises(ValueError, match="no option 'stepps', did you mean 'steps'"):
        adapt(backbone, make_pixels(4), stepps=3)
    with pytest.raises(
        ValueError, match="no option 'x'; choose from strategy, trains, start, steps"
    ):
        adapt(backbone, make_pixels(4), x=3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_mixture_weights_on_an_unshared_backbone_are_refused(unshared, make_pixels, strategy):
    with pytest.raises(ValueError, match=r'use trains="input_adapter"'):
        adapt(unshared, make_pixels(4), strategy, **QUICK)


def test_no_images_are_refused(backbone: Backbone, make_pixels):
    with pytest.raises(ValueError, match="no images"):
        adapt(backbone, make_pixels(4)[:0])


def test_a_folder_of_pictures_is_adapted_to_and_predicted(backbone, make_pixels, tmp_path: Path):
    images = make_pixels(10)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    from_folder = adapt(backbone, tmp_path, **QUICK)
    assert same(from_folder, adapt(backbone, images, **QUICK))
    assert torch.equal(from_folder.predict(tmp_path), from_folder.predict(images))


def test_images_of_another_size_are_resized(backbone: Backbone, make_pixels):
    made = adapt(backbone, make_pixels(6, size=20), **QUICK)
    assert made.predict_proba(make_pixels(3, size=5)).shape == (3, 3)


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("strategy", CHOICES)
def test_a_target_of_one_image_works(backbone: Backbone, make_pixels, strategy: str, colour: bool):
    found = adapt(backbone, make_pixels(1, colour=colour), strategy, steps=2)
    assert all(value.isfinite().all() for value in content(found).values())


def test_read_only_images_are_taken_without_a_warning(backbone: Backbone, make_pixels):
    images = make_pixels(10)
    images.flags.writeable = False
    labels = adapt(backbone, images, **QUICK).predict(images)
    assert len(labels) == len(images)


@pytest.mark.parametrize("strategy", CHOICES)
@pytest.mark.parametrize("trains", ADAPTED)
def test_the_same_seed_gives_the_same_adaptation(backbone, make_pixels, strategy, trains: str):
    images = make_pixels(15)
    one = adapt(backbone, images, strategy, trains=trains, seed=3, **QUICK)
    torch.rand(2)
    assert same(one, adapt(backbone, images, strategy, trains=trains, seed=3, **QUICK))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_gives_another_adaptation(backbone: Backbone, make_pixels, strategy: str):
    images = make_pixels(15)
    one = adapt(backbone, images, strategy, seed=3, **QUICK)
    assert one.history != adapt(backbone, images, strategy, seed=4, **QUICK).history


@pytest.mark.parametrize("strategy", CHOICES)
def test_global_generators_are_left_alone(backbone: Backbone, make_pixels, strategy: str):
    images = torch.from_numpy(make_pixels(15))
    loader = DataLoader(TensorDataset(images), batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state(legacy=False)  # noqa: NPY002
    adapt(backbone, loader, strategy, **QUICK).predict(loader)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)  # noqa: NPY002


@pytest.mark.parametrize("strategy", CHOICES)
@pytest.mark.parametrize("trains", ADAPTED)
def test_the_backbone_is_as_before(make_backbone, make_pixels, strategy: str, trains: str):
    backbone = make_backbone()
    network = backbone.network
    network.heads.requires_grad_(True)
    network.output_adapter.train()
    flags = [parameter.requires_grad for parameter in network.parameters()]
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fingerprint = backbone.fingerprint
    adapt(backbone, make_pixels(15), strategy, trains=trains, **QUICK)
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    after = network.state_dict()
    assert list(after) == list(before)  # the target is not added to the backbone
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert backbone.fingerprint == fingerprint


def test_the_result_needs_no_gradient_and_holds_stored_statistics(backbone, make_pixels):
    domain = adapt(backbone, make_pixels(15), trains="input_adapter", **QUICK).domain
    assert not any(parameter.requires_grad for parameter in domain.parameters())
    assert not domain.batch_statistics


def test_two_adaptations_do_not_touch_each_other(backbone: Backbone, make_pixels):
    one = adapt(backbone, make_pixels(15), trains="input_adapter", **QUICK)
    before = content(one)
    adapt(backbone, make_pixels(15, seed=4), trains="input_adapter", **QUICK)
    assert all(torch.equal(value, before[name]) for name, value in content(one).items())


def test_the_blend_of_the_start_is_in_the_notes(backbone: Backbone, make_pixels):
    images = make_pixels(15)
    found = adapt(backbone, images, **QUICK)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0)).numpy()
    start = make_start(backbone, found.notes["start"], "target", images[order])
    blend = blend_statistics(
        start.source_statistics, start.target_statistics, found.notes["target_share"]
    )
    torch.testing.assert_close(found.domain.mean, blend[0])
    torch.testing.assert_close(found.domain.var, blend[1])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bfloat16_learns_nearly_the_same(backbone, make_pixels, strategy: str):
    images = make_pixels(60)
    one, other = (
        adapt(backbone, images, strategy, steps=25, guard=False, check_every=25, bfloat16=flag).last
        for flag in (False, True)
    )
    assert one is not None and other is not None
    left, right = one.mixture(), other.mixture()
    assert not torch.equal(left, right)
    torch.testing.assert_close(left, right, atol=0.05, rtol=0.05)


def test_options_come_before_those_of_a_config(backbone: Backbone, make_pixels):
    images, config = make_pixels(15), AdaptConfig(strategy="moment_matching", seed=3, **QUICK)
    assert same(
        adapt(backbone, images, config=config),
        adapt(backbone, images, "moment_matching", seed=3, **QUICK),
    )
    found = adapt(backbone, images, "batch_norm", config=config, seed=4)
    assert (found.notes["strategy"], found.notes["seed"]) == ("batch_norm", 4)
    assert (config.strategy, config.seed) == ("moment_matching", 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_instance_with_the_usual_options_is_its_name(backbone, make_pixels, strategy: str):
    images = make_pixels(15)
    given = STRATEGIES[strategy]()
    before = dict(vars(given))
    found = adapt(backbone, images, given, **QUICK)
    named = adapt(backbone, images, strategy, **QUICK)
    assert found.notes.pop("strategy_options") == before
    assert "strategy_options" not in named.notes
    assert same(found, named)
    assert vars(given) == before  # adapt worked on a copy
    again = adapt(backbone, images, given, **QUICK)
    assert again.history == found.history


def test_a_strategy_may_be_given_options(backbone: Backbone, make_pixels, tmp_path: Path):
    images = make_pixels(15)
    found = adapt(backbone, images, MomentMatching(moments=1), **QUICK)
    assert found.notes["strategy"] == "moment_matching"
    assert found.notes["strategy_options"] == {"moments": 1, "weight": 1.0}
    usual = adapt(backbone, images, "moment_matching", **QUICK)
    assert found.history[0]["moment_distance"] < usual.history[0]["moment_distance"]
    found.save(tmp_path / "a.safetensors")
    config = AdaptConfig(strategy=MomentMatching(moments=1), **QUICK)
    assert same(adapt(backbone, images, config=config), found)


class Confident:
    """A user's own: predictions of less entropy."""

    def prepare(self, task: AdaptationTask) -> None:
        self.task = task

    def step(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.task.backbone.network(images, self.task.target)
        loss = entropy(probabilities(logits)).mean()
        self.task.descend(loss)
        return {"entropy": loss.detach()}


@pytest.mark.parametrize("trains", ADAPTED)
def test_a_users_own_class_is_a_strategy(backbone: Backbone, make_pixels, trains: str):
    images: Any = make_pixels(60)
    given = Confident()
    options: dict[str, Any] = {"trains": trains, "steps": 30, "batch_size": 60, "guard": False}
    found = adapt(backbone, images, given, **options)
    assert found.notes["strategy"] == "Confident" and "strategy_options" not in found.notes
    assert vars(given) == {}
    entropies = [entry["entropy"] for entry in found.history]
    assert len(entropies) == 30 and entropies[-1] < entropies[0]
    assert same(found, adapt(backbone, images, given, **options))
    usual = LEARNING_RATES[trains]  # where no RATE is stated
    assert same(found, adapt(backbone, images, given, learning_rate=usual, **options))


def test_what_learns_is_found_by_name_or_as_it_is():
    given = MomentMatching(moments=1)
    assert strategy_of(given) is given
    for name, method in STRATEGIES.items():
        assert isinstance(strategy_of(name), method)
    for name in UNLEARNED:
        with pytest.raises(ValueError, match=f"{name} learns nothing; choose from adversarial, "):
            strategy_of(name)


@pytest.mark.parametrize("own", ["input_adapter", "batch_norm", "heads"])
@pytest.mark.parametrize("trains", ADAPTED)
def test_a_domain_with_own_parts_is_adapted_from(make_backbone, make_pixels, moving, own, trains):
    """Those parts come along, and what is trained moves alone."""
    backbone, images = make_backbone(), make_pixels(15)
    known = backbone.network.new_domain("site-1")
    unlock(backbone.network, known, own)
    backbone.network.domains.add(known.requires_grad_(False))
    options: dict[str, Any] = {"start": "site-1", "trains": trains, "guard": False, **QUICK}
    found = adapt(backbone, images, **options).last
    assert found is not None
    one, two = known.state_dict(), found.state_dict()
    assert one.keys() <= two.keys()
    parts = {name.split(".")[0] for name in one}
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])}
    assert moved - {"mean", "var"} == moving[trains] & parts


def test_several_strategies_from_one_start_are_each_as_alone(make_backbone, make_pixels):
    backbone, images = make_backbone(), make_pixels(60)
    config = AdaptConfig(
        strategy="chosen_start",
        start_config=StartConfig(least_informed=-1.0),
        batch_size=8,
        steps=4,
    )
    ready = prepare(backbone, images, "target", config)
    for strategy, trains, steps in (
        ("information_maximization", "mixture_weights", 4),
        ("tent", "batch_norm", 3),
        ("consensus", "input_adapter", 2),
        ("chosen_start", "mixture_weights", 4),
    ):
        options: dict[str, Any] = {"strategy": strategy, "trains": trains, "steps": steps}
        shared = adapted(ready.asking(**options))
        alone = adapt(backbone, images, config=config, **options)
        assert same(shared, alone)
    for other in ({"strategy": "batch_norm"}, {"strategy": "t3a"}, {"seed": 1}):
        with pytest.raises(ValueError, match="another start than the one that is made"):
            ready.asking(**other)
