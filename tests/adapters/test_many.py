from typing import Any

import pytest
import torch

from adapters import adapt, adapt_many
from adapters.many import TOGETHER
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
        assert [e["step"] for e in many.history] == [e["step"] for e in alone.history]
        assert many.scores.keys() == alone.scores.keys()


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


def test_input_adapters_cannot_be_adapted_together(backbone: Backbone, targets) -> None:
    with pytest.raises(ValueError, match="input_adapter cannot adapt targets together"):
        adapt_many(backbone, targets, together=True, trains="input_adapter", **SHORT)


def test_no_targets_give_no_adaptations(backbone: Backbone) -> None:
    assert adapt_many(backbone, {}, together=True) == {}


def test_backbone_is_left_bit_identical(backbone: Backbone, targets) -> None:
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    adapt_many(backbone, targets, together=True, **SHORT)
    after = backbone.network.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(before[name]) for name, value in after.items())
