"""Adapting a backbone that is composed of experts: no source is known."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters import STRATEGIES, adapt, adapt_many, load_adaptation
from adapters.config import CHOICES
from adapters.parts import DIRECTED
from adapters.start import best_start, check_start
from da_compose import Backbone, PretrainedNetwork, compose
from da_compose.images import to_pixels
from da_compose.starts import MEAN, Tried, make_start, starts_to_compare
from da_compose.statistics import estimate_statistics
from tests.tiny_modules import SIZE, tiny_module

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 8, "check_every": 2}
NEEDY = ("adversarial", "moment_matching", "classifier_discrepancy")
NEEDED = "needs to know the sources, and a backbone that is composed of experts knows none"


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["conv", "transformer"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    experts = {f"site-{number}": tiny_module(request.param, number) for number in range(3)}
    network = tiny_module(request.param, 9)
    return compose(experts, network=network, class_names="abcdefg", image_size=SIZE)


def test_the_average_starts_with_statistics_between_the_experts_and_the_targets(backbone: Backbone):
    network, images = backbone.network, pictures(30)
    start, fresh = make_start(backbone, MEAN, "target", images), network.new_domain("new")
    start.use_statistics(0.0)
    assert isinstance(network, PretrainedNetwork)
    assert not start.target.mixture().any()
    torch.testing.assert_close((start.target.mean, start.target.var), (fresh.mean, fresh.var))
    own = estimate_statistics(network, fresh, [to_pixels(images)])
    start.use_statistics(1.0)
    if fresh.mean.numel():
        apart = [float((start.target.mean - other).norm()) for other in (own[0], fresh.mean)]
        whole = float((own[0] - fresh.mean).norm())
        assert min(apart) > 0 and sum(apart) == pytest.approx(whole, rel=1e-3)


def test_an_expert_is_a_start_with_all_that_is_its_own(backbone: Backbone):
    start = make_start(backbone, "site-1", "target", pictures(30))
    start.use_statistics(0.0)
    expert = backbone.network.domains["site-1"]
    with torch.no_grad():
        found = backbone.network(to_pixels(pictures(4)), start.target)
        assert torch.equal(found, backbone.network(to_pixels(pictures(4)), expert))


@pytest.mark.parametrize("start", [MEAN, "nearest", "site-2"])
def test_what_is_learned_moves_xi_alone(backbone: Backbone, start: str):
    before = {k: v.clone() for k, v in backbone.network.state_dict().items()}
    found = adapt(backbone, pictures(60), start=start, guard=False, **QUICK)
    after = backbone.network.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert found.learned_parameters == 3 * backbone.network.config.num_layers
    assert found.last is not None
    begun = make_start(backbone, found.notes["start"], "target", pictures(60)).target
    old, new = begun.state_dict(), found.last.state_dict()
    moved = {key for key in new if not torch.equal(new[key], old[key])}
    assert "mixture.xi" in moved <= {"mixture.xi", "mean", "var"}


def test_an_adaptation_is_loaded_and_exported_as_it_is(backbone: Backbone, tmp_path):
    found = adapt(backbone, pictures(60), guard=False, **QUICK)
    found.save(tmp_path / "adapter")
    loaded = load_adaptation(tmp_path / "adapter", backbone)
    assert torch.equal(loaded.predict_proba(pictures(5)), found.predict_proba(pictures(5)))
    assert found.export(tmp_path / "target.pt2") < 1e-5


@pytest.mark.parametrize("strategy", [name for name in CHOICES if name not in NEEDY])
def test_what_needs_no_source_goes_through(backbone: Backbone, strategy: str):
    found = adapt(backbone, pictures(60), strategy, **QUICK)
    assert found.notes.get("chosen", "start") in ("start", *DIRECTED.tries)


@pytest.mark.parametrize("strategy", NEEDY)
def test_what_needs_the_sources_says_so(backbone: Backbone, strategy: str):
    assert strategy in STRATEGIES
    with pytest.raises(ValueError, match=NEEDED):
        adapt(backbone, pictures(20), strategy, **QUICK)


def test_many_targets_together(backbone: Backbone):
    targets = {"one": pictures(20), "two": pictures(20, 1)}
    found = adapt_many(backbone, targets, together=True, **QUICK)
    alone = adapt(backbone, targets["two"], name="two", **QUICK)
    torch.testing.assert_close(found["two"].domain.state_dict(), alone.domain.state_dict())
    with pytest.raises(ValueError, match=NEEDED):
        adapt_many(backbone, targets, "moment_matching", together=True, **QUICK)


def test_the_start_is_the_one_that_chooses_most_often_as_all_together(backbone: Backbone):
    images = pictures(60)
    candidates = starts_to_compare(backbone)
    assert candidates[0][0] == MEAN
    assert len(candidates) == len({*candidates}) == 4 * 3
    tried = Tried(backbone, "target", images, 60)
    said = [tried.prediction(*one) for one in candidates]
    ensemble = torch.stack(said).mean(dim=0).argmax(dim=1)
    same = [int((one.argmax(dim=1) == ensemble).sum()) for one in said]
    found = best_start(backbone, "nearest", "target", images, 60)
    assert same[candidates.index((found.name, found.share))] == max(same)


def test_starts_are_the_average_and_the_experts(backbone: Backbone):
    with pytest.raises(ValueError, match="choose from mean, nearest, site-0, site-1, site-2"):
        check_start(backbone, "site-9")
