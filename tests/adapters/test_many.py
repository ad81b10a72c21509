from dataclasses import asdict
from typing import Any

import pytest
import torch

from adapters import Adaptation, AdaptConfig, MomentMatching, adapt, adapt_many
from adapters.many import TOGETHER
from adapters.parts import unlock
from da_compose import Backbone

SHORT: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2, "seed": 3}


@pytest.fixture
def targets(make_pixels):
    return {"site-1": make_pixels(15), "site-2": make_pixels(11, seed=1)}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("strategy", sorted(TOGETHER))
def test_each_of_many_targets_is_adapted_as_it_is_alone(
    backbone: Backbone, targets, strategy: str, together: bool
) -> None:
    found = adapt_many(backbone, targets, strategy, together=together, **SHORT)
    assert list(found) == list(targets)
    for name, images in targets.items():
        alone = adapt(backbone, images, strategy, name=name, **SHORT)
        many = found[name]
        assert many.domain.name == name
        torch.testing.assert_close(many.domain.state_dict(), alone.domain.state_dict())
        assert many.last is not None
        assert alone.last is not None
        torch.testing.assert_close(many.last.state_dict(), alone.last.state_dict())
        assert many.notes == alone.notes
        assert many.learned_parameters == alone.learned_parameters
        assert [list(entry) for entry in many.history] == [list(entry) for entry in alone.history]
        assert TOGETHER[strategy].figure in many.history[0]
        torch.testing.assert_close(many.history, alone.history, rtol=1e-4, atol=1e-5)
        assert many.scores.keys() == alone.scores.keys()
        for which, scores in many.scores.items():
            assert asdict(scores) == pytest.approx(asdict(alone.scores[which]), abs=1e-5)


def test_targets_do_not_influence_one_another(backbone: Backbone, targets, make_pixels) -> None:
    found = adapt_many(backbone, targets, together=True, **SHORT)
    other = {**targets, "site-2": make_pixels(20, seed=9)}
    changed = adapt_many(backbone, other, together=True, **SHORT)
    first, again = (result["site-1"].domain.state_dict() for result in (found, changed))
    torch.testing.assert_close(first, again)
    assert not found["site-2"].domain.mean.equal(changed["site-2"].domain.mean)


@pytest.mark.parametrize("strategy", ["adversarial", "batch_norm", "classifier_discrepancy"])
def test_other_strategies_go_one_after_another(backbone: Backbone, targets, strategy: str) -> None:
    found = adapt_many(backbone, targets, strategy, **SHORT)
    alone = adapt(backbone, targets["site-2"], strategy, name="site-2", **SHORT)
    torch.testing.assert_close(found["site-2"].domain.state_dict(), alone.domain.state_dict())
    with pytest.raises(ValueError, match="cannot adapt targets together; choose from"):
        adapt_many(backbone, targets, strategy, together=True, **SHORT)


@pytest.mark.parametrize("trains", ["input_adapter", "batch_norm"])
def test_other_parts_cannot_be_adapted_together(backbone: Backbone, targets, trains: str) -> None:
    with pytest.raises(ValueError, match=f"{trains} cannot adapt targets together"):
        adapt_many(backbone, targets, together=True, trains=trains, **SHORT)
    found = adapt_many(backbone, targets, trains=trains, **SHORT)["site-1"]
    alone = adapt(backbone, targets["site-1"], name="site-1", trains=trains, **SHORT)
    torch.testing.assert_close(found.domain.state_dict(), alone.domain.state_dict())


def test_a_strategy_with_options_goes_one_after_another(backbone: Backbone, targets) -> None:
    strategy = MomentMatching(moments=1)
    found = adapt_many(backbone, targets, strategy, **SHORT)
    assert list(found) == list(targets)
    alone = adapt(backbone, targets["site-2"], strategy, name="site-2", **SHORT)
    assert found["site-2"].history == alone.history
    torch.testing.assert_close(found["site-2"].domain.state_dict(), alone.domain.state_dict())
    with pytest.raises(ValueError, match="moment_matching on mixture_weights cannot adapt targets"):
        adapt_many(backbone, targets, strategy, together=True, **SHORT)


@pytest.mark.parametrize("own", ["input_adapter", "heads"])
@pytest.mark.parametrize("strategy", sorted(TOGETHER))
def test_targets_start_together_from_a_domain_with_own_parts(
    make_backbone, targets, strategy: str, own: str
) -> None:
    backbone = make_backbone()
    known = backbone.network.new_domain("known")
    with torch.no_grad():
        for parameter in unlock(backbone.network, known, own):
            parameter.mul_(1.5)
    backbone.network.domains.add(known.requires_grad_(False))
    options: dict[str, Any] = SHORT | {"start": "known", "guard": False}
    found = adapt_many(backbone, targets, strategy, together=True, **options)
    for name, images in targets.items():
        alone = adapt(backbone, images, strategy, name=name, **options)
        torch.testing.assert_close(found[name].domain.state_dict(), alone.domain.state_dict())
        torch.testing.assert_close(found[name].history, alone.history, rtol=1e-4, atol=1e-5)


def test_targets_with_batch_norm_of_their_own_are_not_adapted_together(
    make_backbone, targets
) -> None:
    backbone = make_backbone()
    known = backbone.network.new_domain("known")
    backbone.network.own_batch_norm(known)
    backbone.network.domains.add(known.requires_grad_(False))
    options: dict[str, Any] = SHORT | {"start": "known"}
    with pytest.raises(ValueError, match=r"site-1, site-2: batch norm .* of its own; use each"):
        adapt_many(backbone, targets, together=True, **options)
    found = adapt_many(backbone, targets, **options)["site-2"]
    alone = adapt(backbone, targets["site-2"], name="site-2", **options)
    torch.testing.assert_close(found.domain.state_dict(), alone.domain.state_dict())


@pytest.mark.parametrize("together", [True, False])
def test_options_come_before_those_of_a_config(backbone: Backbone, targets, together: bool) -> None:
    config = AdaptConfig(strategy="moment_matching", **SHORT)
    found = adapt_many(backbone, targets, together=together, config=config, steps=2)["site-1"]
    assert len(found.history) == 2 and found.notes["strategy"] == "moment_matching"
    with pytest.raises(ValueError, match="no option 'stepps', did you mean 'steps'"):
        adapt_many(backbone, targets, together=together, stepps=2)


@pytest.mark.parametrize("together", [True, False])
def test_a_wrong_name_is_refused_before_any_work(backbone, targets, monkeypatch, together) -> None:
    for worked in ("adapt", "prepare"):
        monkeypatch.setattr(f"adapters.many.{worked}", None)
    with pytest.raises(ValueError, match="domain name 'two words'"):
        adapt_many(backbone, targets | {"two words": targets["site-1"]}, together=together)


def test_no_targets_give_no_adaptations(backbone: Backbone) -> None:
    assert adapt_many(backbone, {}, together=True) == {}


def test_backbone_is_left_bit_identical(backbone: Backbone, targets) -> None:
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    adapt_many(backbone, targets, together=True, **SHORT)
    after = backbone.network.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(before[name]) for name, value in after.items())


@pytest.mark.parametrize("together", [False, True])
def test_each_is_given_as_it_is_there(backbone: Backbone, targets, together: bool) -> None:
    given: list[Adaptation] = []
    found = adapt_many(backbone, targets, together=together, finished=given.append, **SHORT)
    assert given == [*found.values()]


def test_what_is_there_before_an_error_was_given(backbone: Backbone, targets) -> None:
    given: list[Adaptation] = []
    with pytest.raises(ValueError, match="no images"):
        adapt_many(backbone, targets | {"empty": []}, finished=given.append, **SHORT)
    assert [one.domain.name for one in given] == [*targets]


@pytest.mark.parametrize("together", [False, True])
def test_an_error_says_of_which_target_it_is(backbone: Backbone, targets, together: bool) -> None:
    with pytest.raises(ValueError, match="no images") as error:
        adapt_many(backbone, targets | {"empty": []}, together=together, steps=1)
    assert error.value.__notes__ == ["of target 'empty'"]
    with pytest.raises(ValueError, match="targets must be a mapping by name, got a list"):
        adapt_many(backbone, [*targets.values()], together=together)  # pyright: ignore[reportArgumentType]
