"""The paper's qualitative claims and ours, held against the rows: reproduced, or not, or open."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

import torch
from torch import Tensor

from adapters.transfer import MEAN, NEAREST, RANDOM
from benchmarks.reports.tables import GUIDE
from benchmarks.tasks.organization import agreement, early_and_late, mixture_distances
from benchmarks.tasks.plan import (
    COMPOSITIONAL,
    DEPTHS,
    LEARNED,
    PATCHES,
    SINGLE,
    TRAINED,
)
from benchmarks.tasks.tables import accuracies, pick, spread, table, trained_in_words
from benchmarks.tasks.train import TaskRow
from da_compose.model.signature import SIGNATURES, num_runs, sharpness, signature_of
from data_prep.filters import FILTERS

ONE_HOT = 0.9  # a mean largest weight from here on counts as one-hot


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement, and one number a seed that is above 0 where the statement holds."""

    part: str
    text: str
    margins: Sequence[float]
    digits: int = 1

    @property
    def verdict(self) -> str:
        """By twice the standard error of the mean margin; one seed decides nothing."""
        if len(self.margins) < 2:
            return "open (one seed)"
        error = stdev(self.margins) / sqrt(len(self.margins))
        if abs(fmean(self.margins)) <= 2 * error:
            return "open"
        return "reproduced" if fmean(self.margins) > 0 else "not reproduced"


def claims_markdown(rows: Sequence[TaskRow]) -> str:
    """A line a claim: what the paper says, our margin, the verdict."""
    lines = [
        (claim.part, claim.text, spread(claim.margins, claim.digits), claim.verdict)
        for claim in claims(rows)
    ]
    text = (
        "What the paper claims, and what we expect (ours). Margin: above 0 where it holds, mean ± "
        "deviation over seeds;\nverdict: beyond two standard errors of it, of three seeds a weak "
        f"test. {GUIDE}"
    )
    return f"{text}\n\n{table(('Part', 'Claim', 'Margin', 'Verdict'), lines, texts=2)}\n"


def claims(rows: Sequence[TaskRow]) -> Iterator[Claim]:
    """Every claim that the rows at hand can speak to."""
    for part, make in CLAIMS.items():
        own = [row for row in rows if row.part == part]
        if own:
            for text, found, digits in make(own):
                if found:
                    yield Claim(part=part, text=text, margins=found, digits=digits)


Found = Iterator[tuple[str, list[float], int]]  # text, margins, digits shown


def margins(
    rows: Sequence[TaskRow], of_seed: Callable[[list[TaskRow]], float | None]
) -> list[float]:
    """`of_seed` of each seed's rows, of those seeds that have all it needs (else None)."""
    found = (of_seed(pick(rows, seed=seed)) for seed in sorted({row.seed for row in rows}))
    return [margin for margin in found if margin is not None]


def mean_of(rows: Sequence[TaskRow], **fields: object) -> float | None:
    """Mean accuracy of the rows that `pick` finds; None for none."""
    found = accuracies(rows, **fields)
    return fmean(found) if found else None


def less(one: float | None, other: float | None) -> float | None:
    """The difference; None where one of the two is missing."""
    return None if one is None or other is None else one - other


def _of_signatures(rows: Sequence[TaskRow]) -> Found:
    def of_mixtures(setting: str, measure: Callable[[Tensor], float]) -> list[float]:
        own = pick(rows, setting=setting)
        return [measure(torch.tensor(row.found["mixture"])) for row in own]

    def over_worst(own: list[TaskRow]) -> float | None:
        found = [mean_of(own, setting=kind) for kind in SIGNATURES]
        hand_made = [accuracy for accuracy in found if accuracy is not None]
        return less(mean_of(own, setting=LEARNED), min(hand_made, default=None))

    def progressive_over_best(own: list[TaskRow]) -> float | None:
        found = [mean_of(own, setting=kind) for kind in SIGNATURES if kind != "progressive"]
        others = [accuracy for accuracy in found if accuracy is not None]
        return less(mean_of(own, setting="progressive"), max(others, default=None))

    sharpened = "learned, min-entropy"
    limit = f"(largest weight - {ONE_HOT})"
    yield f"learned ξ tends to one-hot {limit}", of_mixtures(LEARNED, over_one_hot), 2
    yield (
        f"so it does with the entropy-type penalty {limit}",
        of_mixtures(sharpened, over_one_hot),
        2,
    )
    text = "learned signatures come in runs (runs expected of shuffled layers - runs)"
    yield text, of_mixtures(LEARNED, fewer_runs_than_chance), 1
    text = "ours: learned ξ is at least as good as the worst hand-made signature (points)"
    yield text, margins(rows, over_worst), 1
    text = "progressive is the best hand-made signature (points over the next)"
    yield text, margins(rows, progressive_over_best), 1


def over_one_hot(mixture: Tensor) -> float:
    """Mean largest weight of the layers beyond what counts as one-hot: mixture (L, K)."""
    return float(sharpness(mixture).mean()) - ONE_HOT


def fewer_runs_than_chance(mixture: Tensor) -> float:
    """Expected runs if the layers' main templates were shuffled, less the runs there are."""
    signature = torch.tensor(signature_of(mixture))
    counts, layers = torch.bincount(signature).double(), len(signature)
    alike = float((counts * (counts - 1)).sum()) / (layers * (layers - 1))
    return 1 + (layers - 1) * (1 - alike) - num_runs(signature.tolist())


def _of_depth(rows: Sequence[TaskRow]) -> Found:
    least, most = f"{DEPTHS[0]} layers", f"{DEPTHS[-1]} layers"
    for task in dict.fromkeys(row.task for row in rows):
        over = margins(
            pick(rows, task=task),
            lambda own: less(mean_of(own, setting=most), mean_of(own, setting=least)),
        )
        yield f"{task}: {most} of one bank are better than {least} (points)", over, 1


def _of_tasks(rows: Sequence[TaskRow]) -> Found:
    for other, text in (
        (
            PATCHES,
            "ours: the bank is better than shared layers with logits and γ, β a task (points)",
        ),
        (SINGLE, "ours: the bank is better than a network for each task (points)"),
    ):
        over = margins(
            rows,
            lambda own, other=other: less(
                mean_of(own, setting=COMPOSITIONAL), mean_of(own, setting=other)
            ),
        )
        yield text, over, 1
    early, late = [], []
    for mixtures in joint_mixtures(rows).values():
        distances = mixture_distances(torch.stack([*mixtures.values()]))
        filters, sets = [filter_of(n) for n in mixtures], [set_of(n) for n in mixtures]
        if len({*filters}) > 1 and len({*sets}) > 1:
            early.append(early_and_late(agreement(distances, filters))[0])
            late.append(early_and_late(agreement(distances, sets))[1])
    yield "tasks of one image transform share early layers (agreement)", early, 3
    yield "tasks of one data set share late layers (agreement)", late, 3


def joint_mixtures(rows: Sequence[TaskRow]) -> dict[int, dict[str, Tensor]]:
    """Seed -> task -> mixture (L, K) of the tasks that share one bank."""
    found: dict[int, dict[str, Tensor]] = {}
    for row in pick(rows, setting=COMPOSITIONAL):
        found.setdefault(row.seed, {})[row.task] = torch.tensor(row.found["mixture"])
    return found


def filter_of(task: str) -> str:
    """The filter of a task's images; empty for none."""
    return next((kind for kind in FILTERS if task.endswith(f"_{kind}")), "")


def set_of(task: str) -> str:
    """The data set of a task, apart from the filter."""
    return task.removesuffix(f"_{filter_of(task)}") if filter_of(task) else task


def _of_transfer(rows: Sequence[TaskRow]) -> Found:
    for trains in TRAINED:
        own = pick(rows, trains=trains)
        words = f"({trained_in_words(trains)}; points)"
        over_random = margins(
            own, lambda found: less(mean_of(from_a_task(found)), mean_of(found, start=RANDOM))
        )
        yield f"a trained task is a better start than a random ξ {words}", over_random, 1
        of_chosen = margins(
            own, lambda found: less(mean_of(found, start=NEAREST), mean_of(from_a_task(found)))
        )
        yield f"ours: the chosen start beats the average one {words}", of_chosen, 1
    for start, name in ((NEAREST, "chosen"), (RANDOM, RANDOM)):
        for fewer, more in (TRAINED[:2], TRAINED[2:]):
            gains = margins(
                pick(rows, start=start),
                lambda found, fewer=fewer, more=more: less(
                    mean_of(found, trains=more), mean_of(found, trains=fewer)
                ),
            )
            text = f"ξ adds to {trained_in_words(fewer)} from the {name} start (points)"
            yield text, gains, 1


def from_a_task(rows: Sequence[TaskRow]) -> list[TaskRow]:
    """New tasks that start from one trained task, not chosen."""
    return [row for row in rows if row.start not in (MEAN, RANDOM, NEAREST)]


CLAIMS: Mapping[str, Callable[[Sequence[TaskRow]], Found]] = {
    "signatures": _of_signatures,
    "depth": _of_depth,
    "tasks": _of_tasks,
    "transfer": _of_transfer,
}
