"""Paired differences between cells, with confidence intervals, beside what was hoped for.

Pairs are of one seed: of one backbone, or of two that were pretrained with it. The interval is
Student's, of the mean over seeds; of three seeds it is wide.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan, nan, sqrt
from statistics import fmean, stdev

from benchmarks.harness.plan import TRAINED, UNLEARNED
from benchmarks.harness.rows import ResultRow, latest
from benchmarks.reports.tables import GUIDE, NONE, SIDES, data_line, display_name

LEVEL = 0.95
AUTO, ORACLE, START = "auto", "oracle", "chosen_start"
OURS, THEIRS = "compositional", "unshared"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One number a seed, and what its mean was hoped to be at least, if anything was."""

    text: str
    values: Sequence[float]
    wanted: float | None = None

    @property
    def margin(self) -> float:
        """Half of the interval's width; not a number for one seed."""
        count = len(self.values)
        if count < 2:
            return nan
        from scipy.stats import t  # takes a second to import

        return float(t.ppf((1 + LEVEL) / 2, count - 1)) * stdev(self.values) / sqrt(count)


def gain(row: ResultRow) -> float:
    """Points over the better of source only and AdaBN."""
    return row.accuracy - max(row.source_only, row.batch_norm)


def by_seed(rows: Sequence[ResultRow], network: str, strategy: str) -> dict[int, ResultRow]:
    """The row of each seed of a strategy, on what is compared of the network; oracles too."""
    trains = "nothing" if strategy in UNLEARNED else TRAINED[network]
    return {
        row.seed: row
        for row in rows
        if (row.network, row.strategy, row.trains) == (network, strategy, trains)
    }


def of_one_target(rows: Sequence[ResultRow]) -> Iterator[Difference]:
    """Mixture weights against the input adapter, and against what the same numbers could be."""
    ours, side = by_seed(rows, OURS, AUTO), SIDES[OURS]
    if not ours:
        return
    learned_by = {r.strategy for r in rows if r.network == THEIRS and not r.oracle}
    theirs = sorted(learned_by - {*UNLEARNED})
    pairs = {}  # accuracies of ours and of a strategy of theirs, of the seeds that both have
    for name in theirs:
        found = by_seed(rows, THEIRS, name)
        if both := [(row.accuracy, found[s].accuracy) for s, row in ours.items() if s in found]:
            pairs[name] = both
    if pairs:
        best = max(pairs, key=lambda name: fmean(other for _, other in pairs[name]))
        yield Difference(
            text=f"{side}, auto, over {SIDES[THEIRS]}, {display_name(best)}, its best (points)",
            values=[own - other for own, other in pairs[best]],
            wanted=0,
        )
    percent = [row.accuracy for row in ours.values()]
    yield Difference(text=f"{side}, auto (percent)", values=percent, wanted=95)
    yield Difference(
        text=f"{side}, auto, over the better start (points)",
        values=[gain(row) for row in ours.values()],
        wanted=0,
    )
    start = by_seed(rows, OURS, START)
    if learned := [row.accuracy - start[s].accuracy for s, row in ours.items() if s in start]:
        yield Difference(text=f"{side}, auto, over its own start (points)", values=learned)
    oracle = by_seed(rows, OURS, ORACLE)
    both = [seed for seed in ours if seed in oracle]
    room = sum(gain(oracle[seed]) for seed in both)
    if room > 0:
        share = 100 * sum(gain(ours[seed]) for seed in both) / room
        text = f"{side}, auto, share of the oracle's gain (percent, means over seeds)"
        yield Difference(text=text, values=[share], wanted=80)


def of_rotation(rows: Sequence[ResultRow]) -> Iterator[Difference]:
    """`auto` and the oracle over the better start: mean over targets, and the least of a target.

    Of the seeds that have every target.
    """
    targets = sorted({row.target for row in rows})
    for network, strategy in product(SIDES, (AUTO, ORACLE)):
        found = {t: by_seed([r for r in rows if r.target == t], network, strategy) for t in targets}
        seeds = sorted(set.intersection(*(set(rows_of) for rows_of in found.values())))
        if not seeds:
            continue
        gains = {target: [gain(found[target][seed]) for seed in seeds] for target in targets}
        worst = min(targets, key=lambda target: fmean(gains[target]))
        oracle = strategy == ORACLE
        name = f"{SIDES[network]}, {display_name(strategy, oracle)}"
        over = f"{name}, over the better start (points)"
        yield Difference(
            text=f"{over}, mean of targets",
            values=[fmean(of_seed) for of_seed in zip(*gains.values(), strict=True)],
            wanted=None if oracle else 3,
        )
        yield Difference(
            text=f"{over}, least: {worst}", values=gains[worst], wanted=None if oracle else -0.5
        )


def differences_markdown(rows: Iterable[ResultRow]) -> str:
    """One captioned table for each benchmark and data, of one target or of targets in turn."""
    parted: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in latest(rows):
        parted.setdefault((row.benchmark, row.profile, row.data_fingerprint), []).append(row)
    return "\n".join(_table(own) for own in parted.values())


def _table(rows: Sequence[ResultRow]) -> str:
    header = ["", "mean", "95 % interval", "wanted"]
    lines = [header, ["---", *["--:"] * (len(header) - 1)]]
    seeds = []
    for recipe in dict.fromkeys(row.recipe for row in rows):
        own = [row for row in rows if row.recipe == recipe]
        seeds.append(f"{', '.join(map(str, sorted({row.seed for row in own})))} ({recipe})")
        found = of_rotation(own) if len({row.target for row in own}) > 1 else of_one_target(own)
        lines += [_line(recipe, difference) for difference in found]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = (
        f"{rows[0].benchmark}; {data_line(rows[0])}; profile: {rows[0].profile}\n"
        f"Means over seeds {'; '.join(seeds)}.\n{GUIDE}"
    )
    return f"{text}\n\n{table}\n"


def _line(recipe: str, difference: Difference) -> list[str]:
    mean, margin, wanted = fmean(difference.values), difference.margin, difference.wanted
    interval = NONE if isnan(margin) else f"{mean - margin:.1f} to {mean + margin:.1f}"
    hoped = NONE
    if wanted is not None:
        hoped = f"at least {wanted:g}: {'yes' if mean >= wanted else 'no'}"
    return [f"{recipe}: {difference.text}", f"{mean:.1f}", interval, hoped]
