from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import adapt
from adapters.guard import USUAL, GuardConfig, judge, judge_learning
from adapters.parts import ADAPTED
from adapters.selection import score
from da_compose import probabilities


def logits(classes: list[int], num_classes: int = 4, scale: float = 10.0) -> Tensor:
    """Confident predictions of these classes by both heads: (2, M, N)."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(classes), num_classes)
    return (scale * one_hot).expand(2, -1, -1)


START = [0, 1, 2, 3] * 5


@pytest.fixture
def target_images(make_pixels):
    return make_pixels(12)


def test_an_adaptation_that_changes_little_is_trusted():
    verdict = judge(logits(START), logits([1, *START[1:]]))
    assert verdict.trusted and verdict.changed == pytest.approx(0.05)
    assert "5 % of the images changed" in verdict.reason


@pytest.mark.parametrize(("changed", "trusted"), [(5, True), (6, False), (20, False)])
def test_an_adaptation_that_changes_many_classes_is_not(changed, trusted):
    after = [(label + 1) % 4 for label in START[:changed]] + START[changed:]
    verdict = judge(logits(START), logits(after))
    assert verdict.changed == pytest.approx(changed / 20)
    assert verdict.trusted is trusted is (verdict.changed <= USUAL.most_changed)
    assert trusted or "more than 25 %" in verdict.reason


def test_a_collapse_is_not_trusted_however_few_change():
    start = [0] * 18 + [1, 2]
    verdict = judge(logits(start), logits([0] * 20))
    assert verdict.changed < USUAL.most_changed and verdict.diversity < USUAL.least_diversity
    assert not verdict.trusted and "collapsed" in verdict.reason


def test_one_image_can_be_judged():
    assert judge(logits([0]), logits([0])).changed == 0.0


def shifted(classes: list[int], num_images: int) -> Tensor:
    """These predictions, but of the first images."""
    first, rest = classes[:num_images], classes[num_images:]
    return logits([(label + 1) % 4 for label in first] + rest)


BALANCED = [0, 1, 2, 3] * 25


@pytest.mark.parametrize(
    ("scale", "unsure"), [(9.0, False), (4.5, False), (3.5, True), (1.0, True)]
)
@pytest.mark.parametrize("changed", [12, 13, 25, 26])
def test_an_unsure_start_may_change_fewer_classes(scale: float, unsure: bool, changed: int):
    start = logits(BALANCED, scale=scale)
    information = score(start).information / log(4)
    assert unsure is (information < USUAL.least_certainty)
    classes = probabilities(start).argmax(dim=1).tolist()
    verdict = judge_learning(start, shifted(classes, changed))
    assert verdict.changed == judge(start, shifted(classes, changed)).changed
    most = USUAL.most_changed_unsure if unsure else USUAL.most_changed
    assert verdict.trusted is (verdict.changed <= most)
    said = f"12.5 %, the most where the start is unsure: {100 * information:.0f} % of the"
    assert (said in verdict.reason) is (unsure and changed in (13, 25))


@pytest.mark.parametrize("num_classes", [2, 4, 20])
def test_how_sure_a_start_is_does_not_depend_on_the_number_of_classes(num_classes: int):
    classes = list(range(num_classes)) * (100 // num_classes)
    moved = logits(
        [(label + 1) % num_classes for label in classes[:20]] + classes[20:], num_classes
    )
    assert judge_learning(logits(classes, num_classes, scale=12.0), moved).trusted
    assert not judge_learning(logits(classes, num_classes, scale=1.0), moved).trusted


@pytest.mark.parametrize("trains", ADAPTED)
def test_what_is_not_trusted_ends_at_the_start(backbone, target_images, trains):
    options: dict[str, Any] = {"steps": 2, "learning_rate": 1.0, "trains": trains}
    limits = GuardConfig(most_changed=0.0, least_diversity=1.0)
    guarded = adapt(backbone, target_images, guard_config=limits, **options)
    assert guarded.notes["guard"]["trusted"] is False and guarded.notes["kept_step"] == 0
    assert guarded.scores["adapted"] == guarded.scores["start"]
    free = adapt(backbone, target_images, guard=False, **options)
    assert "guard" not in free.notes
    assert guarded.last is not None and free.last is not None
    one, two = guarded.last.state_dict(), free.last.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    start, end = guarded.domain.state_dict(), free.domain.state_dict()
    assert not all(torch.equal(start[name], end[name]) for name in start)


def test_what_is_trusted_is_kept(backbone, target_images):
    limits = GuardConfig(most_changed=1.0, most_changed_unsure=1.0, least_diversity=0.0)
    guarded = adapt(backbone, target_images, steps=2, guard_config=limits)
    free = adapt(backbone, target_images, steps=2, guard=False)
    assert guarded.notes["guard"]["trusted"] is True
    assert torch.equal(guarded.domain.mixture(), free.domain.mixture())
    assert guarded.notes["kept_step"] == free.notes["kept_step"]


@pytest.mark.parametrize("strategy", ["source_only", "batch_norm"])
def test_where_nothing_is_learned_there_is_nothing_to_guard(backbone, target_images, strategy):
    assert "guard" not in adapt(backbone, target_images, strategy).notes


def test_every_limit_is_an_option():
    start, half = logits(BALANCED), shifted(BALANCED, 50)
    assert not judge(start, half).trusted
    assert judge(start, half, GuardConfig(most_changed=0.5)).trusted
    verdict = judge(start, shifted(BALANCED, 1), GuardConfig(most_changed=0.0))
    assert not verdict.trusted and "more than 0 %" in verdict.reason
    collapse = logits([0] * 100)
    everything = GuardConfig(most_changed=1.0, least_diversity=0.0)
    assert judge(start, collapse, everything).trusted
    assert not judge(start, collapse, replace(everything, least_diversity=0.1)).trusted
    unsure = logits(BALANCED, scale=1.0)
    some = shifted(BALANCED, 20)
    assert not judge_learning(unsure, some).trusted
    assert judge_learning(unsure, some, GuardConfig(most_changed_unsure=0.2)).trusted
    assert judge_learning(unsure, some, GuardConfig(least_certainty=0.0)).trusted


@pytest.mark.parametrize("name", vars(USUAL))
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_limits_are_shares(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1, got {value}"):
        GuardConfig(**{name: value})
