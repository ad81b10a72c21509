from math import log

import pytest
import torch
from torch import Tensor

from adapters import adapt
from adapters.guard import (
    LEAST_BALANCE,
    LEAST_DIVERSITY,
    LEAST_IMAGES,
    LEAST_INFORMATION,
    MOST_CHANGED,
    MOST_CHANGED_UNFIT,
    MOST_CHANGED_UNSURE,
    judge,
    judge_learning,
    most_changed,
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


def shifted(classes: list[int], num_images: int) -> Tensor:
    """These predictions, but of the first images."""
    first, rest = classes[:num_images], classes[num_images:]
    return logits([(label + 1) % 4 for label in first] + rest)


BALANCED = [0, 1, 2, 3] * 25


@pytest.mark.parametrize(("count", "limit"), [(48, MOST_CHANGED_UNFIT), (52, MOST_CHANGED)])
def test_few_images_may_hardly_change_a_class(count, limit):
    assert 48 < LEAST_IMAGES <= 52
    found, why = most_changed(logits(BALANCED[:count]))
    assert found == limit
    assert ("fewer than 50 images: 48" in why) is (count < LEAST_IMAGES)


@pytest.mark.parametrize(("rare", "unfit"), [(50, False), (30, False), (20, True), (0, True)])
def test_one_sided_images_may_hardly_change_a_class(rare, unfit):
    start = logits([0] * rare + [1] * rare + [2] * 50 + [3] * 50)
    found, why = most_changed(start)
    assert (found == MOST_CHANGED_UNFIT) is unfit is (score(start).diversity < LEAST_BALANCE)
    assert (f"diversity {score(start).diversity:.2f}, less than 0.95" in why) is unfit


@pytest.mark.parametrize(
    ("scale", "unsure"), [(9.0, False), (4.5, False), (3.5, True), (0.0, True)]
)
def test_an_unsure_start_may_change_fewer_classes(scale, unsure):
    start = logits(BALANCED, scale=scale)
    information = score(start).information / log(4)
    found, why = most_changed(start)
    assert (found == MOST_CHANGED_UNSURE) is unsure is (information < LEAST_INFORMATION)
    assert (f"unsure: {100 * information:.0f} % of the information" in why) is unsure


@pytest.mark.parametrize("num_classes", [2, 4, 20])
def test_how_sure_a_start_is_does_not_depend_on_the_number_of_classes(num_classes):
    classes = list(range(num_classes)) * (100 // num_classes)
    assert most_changed(logits(classes, num_classes, scale=12.0))[0] == MOST_CHANGED
    assert most_changed(logits(classes, num_classes, scale=1.0))[0] == MOST_CHANGED_UNSURE


@pytest.mark.parametrize(("changed", "trusted"), [(0, True), (4, True), (6, False), (30, False)])
def test_what_was_learned_is_judged_by_the_limit_of_its_start(changed, trusted):
    classes = [0] * 80 + [1, 2, 3] * 7
    start, adapted = logits(classes), shifted(classes, changed)
    verdict = judge_learning(start, adapted)
    assert verdict.changed == judge(start, adapted).changed == pytest.approx(changed / 101)
    assert verdict.trusted is trusted
    by_limit = "more than 5 %, the most where some classes seem" in verdict.reason
    assert by_limit is (changed == 6)  # of 30 it is the limit of all starts


def test_it_is_the_start_whose_classes_count():
    others = [1] * 25 + [2] * 25 + [3] * 25
    balanced, skewed = logits([0] * 25 + others), logits([0] * 5 + [1] * 20 + others)
    assert score(skewed).diversity < LEAST_BALANCE < score(balanced).diversity
    assert judge_learning(balanced, skewed).trusted
    assert not judge_learning(skewed, balanced).trusted


def test_what_too_many_changes_end_at_depends_on_the_images(backbone, make_images, monkeypatch):
    monkeypatch.setattr("adapters.guard.MOST_CHANGED_UNFIT", -1.0)
    images = make_images(LEAST_IMAGES)
    many, few = (adapt(backbone, given, steps=2) for given in (images, images[1:]))
    assert many.notes["guard"]["trusted"] is True and many.notes["kept_step"] > 0
    assert few.notes["guard"]["trusted"] is False and few.notes["kept_step"] == 0
    assert few.scores["adapted"] == few.scores["start"]


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
