import pytest
import torch
from torch import Tensor

from adapters import adapt
from adapters.guard import LEAST_DIVERSITY, MOST_CHANGED, judge


def logits(classes: list[int], num_classes: int = 4) -> Tensor:
    """Confident predictions of these classes by both heads: (2, M, N)."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(classes), num_classes)
    return (10.0 * one_hot).expand(2, -1, -1)


START = [0, 1, 2, 3] * 5


@pytest.fixture
def target_images(make_images):
    return make_images(12)


def test_an_adaptation_that_changes_little_is_trusted():
    verdict = judge(logits(START), logits([1, *START[1:]]))
    assert verdict.trusted and verdict.changed == pytest.approx(0.05)
    assert "5 % of the images changed" in verdict.reason


@pytest.mark.parametrize(("changed", "trusted"), [(5, True), (6, False), (20, False)])
def test_an_adaptation_that_changes_many_classes_is_not(changed, trusted):
    after = [(label + 1) % 4 for label in START[:changed]] + START[changed:]
    verdict = judge(logits(START), logits(after))
    assert verdict.changed == pytest.approx(changed / 20)
    assert verdict.trusted is trusted is (verdict.changed <= MOST_CHANGED)
    assert trusted or "more than 25 %" in verdict.reason


def test_a_collapse_is_not_trusted_however_few_change():
    start = [0] * 18 + [1, 2]
    verdict = judge(logits(start), logits([0] * 20))
    assert verdict.changed < MOST_CHANGED and verdict.diversity < LEAST_DIVERSITY
    assert not verdict.trusted and "collapsed" in verdict.reason


def test_one_image_can_be_judged():
    assert judge(logits([0]), logits([0])).changed == 0.0


@pytest.mark.parametrize("trains", ["mixture_weights", "input_adapter"])
def test_what_is_not_trusted_ends_at_the_start(backbone, target_images, monkeypatch, trains):
    monkeypatch.setattr("adapters.guard.MOST_CHANGED", -1.0)
    options = {"steps": 2, "learning_rate": 1.0, "trains": trains}
    guarded = adapt(backbone, target_images, **options)
    assert guarded.notes["guard"]["trusted"] is False and guarded.notes["kept_step"] == 0
    assert guarded.scores["adapted"] == guarded.scores["start"]
    free = adapt(backbone, target_images, guard=False, **options)
    assert "guard" not in free.notes
    assert guarded.last is not None and free.last is not None
    assert torch.equal(guarded.last.mixture(), free.last.mixture())


def test_what_is_trusted_is_kept(backbone, target_images, monkeypatch):
    monkeypatch.setattr("adapters.guard.MOST_CHANGED", 1.0)
    monkeypatch.setattr("adapters.guard.LEAST_DIVERSITY", 0.0)
    guarded = adapt(backbone, target_images, steps=2)
    free = adapt(backbone, target_images, steps=2, guard=False)
    assert guarded.notes["guard"]["trusted"] is True
    assert torch.equal(guarded.domain.mixture(), free.domain.mixture())
    assert guarded.notes["kept_step"] == free.notes["kept_step"]


@pytest.mark.parametrize("strategy", ["source_only", "batch_norm"])
def test_where_nothing_is_learned_there_is_nothing_to_guard(backbone, target_images, strategy):
    assert "guard" not in adapt(backbone, target_images, strategy).notes
