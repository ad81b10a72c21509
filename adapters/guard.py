"""Whether an adaptation is to be trusted: label-free signs of negative transfer and of collapse.

A useful adaptation corrects some predictions and leaves most as they are. One that changes the
class of many images does not refine what the model knows of the domain, it replaces it; where the
model knows little, unlabelled images alone cannot say by what. So an unsure start may change less.
The limits are of the digits `optdigits` and `mnist_m`: `python -m benchmarks.studies.guard`,
benchmarks/LOG.md.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from adapters.selection import LEAST_CERTAINTY, certainty, score
from da_compose import probabilities

MOST_CHANGED = 0.25  # share of images whose class may change
MOST_CHANGED_UNSURE = 0.125  # where the start's predictions carry too little information
LEAST_DIVERSITY = 0.5  # of the start's diversity of classes, that must be left


@dataclass(frozen=True)
class Verdict:
    """What the guard says of an adaptation, and why."""

    trusted: bool
    changed: float  # share of images whose class is no longer the start's, 0 to 1
    diversity: float  # entropy of the mean prediction over the start's
    reason: str


def judge_learning(start: Tensor, adapted: Tensor) -> Verdict:
    """As `judge`, with the limit that suits the start that was learned from."""
    verdict = judge(start, adapted)
    certain = certainty(probabilities(start))
    unsure = certain < LEAST_CERTAINTY
    if not verdict.trusted or not unsure or verdict.changed <= MOST_CHANGED_UNSURE:
        return verdict
    reason = (
        f"{verdict.reason}, more than {100 * MOST_CHANGED_UNSURE:g} %, the most where the start is "
        f"unsure: {100 * certain:.0f} % of the information there could be, less than "
        f"{100 * LEAST_CERTAINTY:g} %"
    )
    return replace(verdict, trusted=False, reason=reason)


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
