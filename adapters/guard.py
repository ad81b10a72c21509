"""Whether an adaptation is to be trusted: label-free signs of negative transfer and of collapse.

A useful adaptation corrects some predictions and leaves most as they are. One that changes the
class of many images does not refine what the model knows of the domain, it replaces it; where the
model knows little, unlabelled images alone cannot say by what. So nothing is learned from a start
that is unsure of too many images; nor from few images, nor from images that show some classes much
more often than others, as all strategies expect the classes to be about as frequent as in the
sources. Limits were found on the digits `optdigits` and `mnist_m`: see benchmarks/LOG.md.
"""

from dataclasses import dataclass, replace
from math import log

from torch import Tensor

from adapters.selection import score
from da_compose import probabilities

MOST_CHANGED = 0.25  # share of images whose class may change
LEAST_DIVERSITY = 0.5  # of the start's diversity of classes, that must be left
HARDLY_CHANGED = 0.05  # share of images whose class may change whatever these are:
LEAST_IMAGES = 50
LEAST_BALANCE = 0.95  # diversity of the start's predictions
LEAST_INFORMATION = 0.75  # of the start's predictions, over log N


@dataclass(frozen=True)
class Verdict:
    """What the guard says of an adaptation, and why."""

    trusted: bool
    changed: float  # share of images whose class is no longer the start's, 0 to 1
    diversity: float  # entropy of the mean prediction over the start's
    reason: str


def judge_learning(start: Tensor, adapted: Tensor) -> Verdict:
    """As `judge`; nor is anything trusted that was learned from a start or images unfit for it."""
    verdict = judge(start, adapted)
    if verdict.trusted and verdict.changed > HARDLY_CHANGED and (objection := object_to(start)):
        return replace(verdict, trusted=False, reason=objection)
    return verdict


def object_to(start: Tensor) -> str | None:
    """Why nothing should be learned from these images and this start, if so: logits (2, M, N)."""
    _, num_images, num_classes = start.shape
    if num_images < LEAST_IMAGES:
        return f"{num_images} images are too few to learn from, expected at least {LEAST_IMAGES}"
    scores = score(start)
    if scores.diversity < LEAST_BALANCE:
        return (
            "the images seem to show some classes much more often than others: diversity "
            f"{scores.diversity:.2f}, less than {LEAST_BALANCE:.2f}"
        )
    information = scores.information / log(num_classes)
    if information < LEAST_INFORMATION:
        return (
            "the start is too unsure to learn from: its predictions carry "
            f"{100 * information:.0f} % of the most information they could, "
            f"less than {100 * LEAST_INFORMATION:.0f} %"
        )
    return None


def judge(start: Tensor, adapted: Tensor) -> Verdict:
    """Compare predictions before and after adaptation: logits of both heads (2, M, N), twice."""
    before, after = (probabilities(logits).argmax(dim=1) for logits in (start, adapted))
    changed = (before != after).float().mean().item()
    diversity = score(adapted).diversity / max(score(start).diversity, 1e-6)
    said = f"the class of {100 * changed:.0f} % of the images changed"
    if changed > MOST_CHANGED:
        reason = f"{said}, more than {100 * MOST_CHANGED:.0f} %"
    elif diversity < LEAST_DIVERSITY:
        reason = f"predictions collapsed: {100 * diversity:.0f} % of the start's diversity is left"
    else:
        reason = said
    trusted = changed <= MOST_CHANGED and diversity >= LEAST_DIVERSITY
    return Verdict(trusted, changed, diversity, reason)
