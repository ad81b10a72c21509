from math import log

import pytest
import torch
from torch import Tensor

from adapters import adapt
from adapters.guard import (
    HARDLY_CHANGED,
    LEAST_BALANCE,
    LEAST_DIVERSITY,
    LEAST_IMAGES,
    LEAST_INFORMATION,
    MOST_CHANGED,
    judge,
    judge_learning,
    object_to,
)
from adapters.selection import score


def logits(classes: list[int], num_classes: int = 4, scale: float = 10.0) -> Tensor:
    """Confident predictions of these classes by both heads: (2, M, N)."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(classes), num_classes)
    return (scale * one_hot).expand(2, -1, -1)


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


def shifted(classes: list[int], num_images: int = 10) -> Tensor:
    """These predictions, but of the first images."""
    first, rest = classes[:num_images], classes[num_images:]
    return logits([(label + 1) % 4 for label in first] + rest)


@pytest.mark.parametrize(("count", "trusted"), [(LEAST_IMAGES - 2, False), (LEAST_IMAGES, True)])
def test_what_was_learned_from_few_images_is_not_trusted(count, trusted):
    classes = [number % 4 for number in range(count)]
    assert judge(logits(classes), shifted(classes)).trusted
    verdict = judge_learning(logits(classes), shifted(classes))
    assert verdict.trusted is trusted
    assert (
        trusted
        or f"{count} images are too few to learn from, expected at least 50" in verdict.reason
    )


@pytest.mark.parametrize(("rare", "trusted"), [(50, True), (30, True), (20, False), (5, False)])
def test_what_was_learned_from_one_sided_images_is_not_trusted(rare, trusted):
    classes = [0] * rare + [1] * rare + [2] * 50 + [3] * 50
    balance = score(logits(classes)).diversity
    verdict = judge_learning(logits(classes), shifted(classes))
    assert verdict.trusted is trusted is (balance >= LEAST_BALANCE)
    assert trusted or f"diversity {balance:.2f}, less than 0.95" in verdict.reason


def test_it_is_the_start_that_says_how_one_sided_the_images_are():
    others = [1] * 25 + [2] * 25 + [3] * 25
    balanced, skewed = logits([0] * 25 + others), logits([0] * 5 + [1] * 20 + others)
    assert score(skewed).diversity < LEAST_BALANCE < score(balanced).diversity
    assert judge_learning(balanced, skewed).trusted
    assert not judge_learning(skewed, balanced).trusted


@pytest.mark.parametrize(("changed", "trusted"), [(0, True), (1, True), (3, False)])
def test_where_hardly_a_class_changed_nothing_is_objected_to(changed, trusted):
    classes = [0, 1, 2, 3] * 10
    assert object_to(logits(classes)) is not None
    verdict = judge_learning(logits(classes), shifted(classes, changed))
    assert verdict.changed == pytest.approx(changed / 40)
    assert verdict.trusted is trusted is (verdict.changed <= HARDLY_CHANGED)


def test_a_replaced_model_is_refused_for_that_however_few_images_there_are():
    after = [(label + 1) % 4 for label in START]
    assert "more than 25 %" in judge_learning(logits(START), logits(after)).reason


@pytest.mark.parametrize(
    ("scale", "trusted"), [(10.0, True), (4.5, True), (3.5, False), (0.1, False)]
)
def test_what_was_learned_from_an_unsure_start_is_not_trusted(scale, trusted):
    start = logits([0, 1, 2, 3] * 25, scale=scale)
    information = score(start).information / log(4)
    verdict = judge_learning(start, shifted([0, 1, 2, 3] * 25))
    assert verdict.trusted is trusted is (information >= LEAST_INFORMATION)
    assert trusted or f"carry {100 * information:.0f} % of the most" in verdict.reason


def test_the_start_is_compared_by_the_most_information_of_its_number_of_classes():
    for num_classes in (2, 4, 20):
        classes = list(range(num_classes)) * (100 // num_classes)
        assert object_to(logits(classes, num_classes, scale=12.0)) is None
        assert "unsure" in str(object_to(logits(classes, num_classes, scale=1.0)))


@pytest.mark.parametrize("classes", [[0] * 40, [0] * 90 + [1, 2, 3] * 3])
def test_an_objection_does_not_depend_on_what_was_learned(classes):
    objection = object_to(logits(classes))
    assert objection and judge_learning(logits(classes), shifted(classes)).reason == objection


def test_what_a_start_is_unfit_for_ends_at_the_start(backbone, make_images, monkeypatch):
    monkeypatch.setattr("adapters.guard.HARDLY_CHANGED", -1.0)
    images = make_images(LEAST_IMAGES)
    guarded = adapt(backbone, images, steps=2)
    assert "too unsure to learn from" in guarded.notes["guard"]["reason"]  # of a random backbone
    assert guarded.notes["kept_step"] == 0
    assert guarded.scores["adapted"] == guarded.scores["start"]
    monkeypatch.setattr("adapters.guard.LEAST_INFORMATION", 0.0)
    assert adapt(backbone, images, steps=2).notes["kept_step"] > 0
    assert adapt(backbone, images[1:], steps=2).notes["kept_step"] == 0


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
