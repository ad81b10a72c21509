"""Whether an adaptation is to be trusted: label-free signs of negative transfer and of collapse.

A useful adaptation corrects some predictions and leaves most as they are. One that changes the
class of many images does not refine what the model knows of the domain, it replaces it; where the
model knows little, unlabelled images alone cannot say by what. So an unsure start may change less.
The limits are of the digits `optdigits` and `mnist_m`: `python -m benchmarks.studies.guard`,
benchmarks/LOG.md.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from adapters.selection import LEAST_CERTAINTY, score
from da_compose import probabilities
from da_compose.evidence import certainty


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Limits of what is trusted."""

    most_changed: float = 0.25  # share of images whose class may change
    most_changed_unsure: float = 0.125  # where the start's predictions carry too little information
    least_diversity: float = 0.5  # of the start's diversity of classes, that must be left
    least_certainty: float = LEAST_CERTAINTY  # of the start, below which it is unsure

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")


USUAL = GuardConfig()


@dataclass(frozen=True)
class Verdict:
    """What the guard says of an adaptation, and why."""

    trusted: bool
    changed: float  # share of images whose class is no longer the start's, 0 to 1
    diversity: float  # entropy of the mean prediction over the start's
    reason: str


def judge_learning(
    start: Tensor, adapted: Tensor, limits: GuardConfig = USUAL, certain: float | None = None
) -> Verdict:
    """As `judge`, with the limit that suits the start that was learned from.

    certain: what its predictions carry of the information there could be, before it heeded
    centroids, which make it surer than it is right; None: what `start` carries.
    """
    verdict = judge(start, adapted, limits)
    certain = certainty(probabilities(start)) if certain is None else certain
    unsure = certain < limits.least_certainty
    if not verdict.trusted or not unsure or verdict.changed <= limits.most_changed_unsure:
        return verdict
    reason = (
        f"{verdict.reason}, more than {100 * limits.most_changed_unsure:g} %, the most where the "
        f"start is unsure: {100 * certain:.0f} % of the information there could be, less than "
        f"{100 * limits.least_certainty:g} %"
    )
    return replace(verdict, trusted=False, reason=reason)


def judge(start: Tensor, adapted: Tensor, limits: GuardConfig = USUAL) -> Verdict:
    """Compare predictions before and after adaptation: logits of both heads (2, M, N), twice."""
    before, after = (probabilities(logits).argmax(dim=1) for logits in (start, adapted))
    changed = (before != after).double().mean().item()
    diversity = score(adapted).diversity / max(score(start).diversity, 1e-6)
    said = f"the class of {100 * changed:.0f} % of the images changed"
    if changed > limits.most_changed:
        reason = f"{said}, more than {100 * limits.most_changed:.0f} %"
    elif diversity < limits.least_diversity:
        reason = f"predictions collapsed: {100 * diversity:.0f} % of the start's diversity is left"
    else:
        reason = said
    trusted = changed <= limits.most_changed and diversity >= limits.least_diversity
    return Verdict(trusted, changed, diversity, reason)
