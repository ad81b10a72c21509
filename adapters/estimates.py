"""Estimates of accuracy of an adaptation: of what learns nothing, its start, and its outcome."""

import torch
from torch import Tensor

from adapters.config import OUTCOME
from adapters.prepare import Ready
from da_compose import probabilities
from da_compose.estimate import Estimate, temperature_for, tempered


def estimates(ready: Ready, logits: Tensor) -> dict[str, Estimate]:
    """Of source_only, batch_norm, start and `adapted`, of which logits (2, M, N) are given.

    The last are those on the checked images. There are none of images that mean nothing to the
    backbone, nor where nothing tells: it has no two sources to compare and was not rehearsed.
    """
    if not ready.estimates or ready.meaningless:
        return {}
    found = dict(ready.estimates)
    found[OUTCOME] = found["start"]
    if logits is not ready.logits:
        said = probabilities(ready.logits), probabilities(logits)
        found[OUTCOME] = of_outcome(found["start"], *said)
    return found


def of_outcome(start: Estimate, before: Tensor, after: Tensor) -> Estimate:
    """What was learned from a start, by predictions (M, N) before and after.

    Learning makes a model surer than it is right, so its own figures would flatter it. Instead both
    models are witnesses, as sure as the start is right: where they choose the same class the
    outcome is as good as the start, where it changed they contradict each other, which costs.
    """
    witnesses = [
        tempered(said, temperature_for(said, start.accuracy)).double() for said in (before, after)
    ]
    chosen = after.argmax(dim=1, keepdim=True)
    accuracy = torch.stack(witnesses).mean(dim=0).gather(1, chosen).mean().item()
    low, high = accuracy - (start.accuracy - start.low), accuracy + (start.high - start.accuracy)
    return Estimate(accuracy, max(0.0, low), min(1.0, high))
