"""Paired differences between cells, with confidence intervals, beside what was hoped for.

Pairs are of one seed: of one backbone, or of two that were pretrained with it. The interval is
Student's, of the mean over seeds; of three seeds it is wide.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from statistics import fmean, stdev

import pandas as pd

from benchmarks.plan import TRAINED
from benchmarks.results import ResultRow, latest
from benchmarks.tables import BASELINES, NONE, SIDES, display_name

LEVEL = 0.95
AUTO, ORACLE = "auto", "oracle"
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


def frame_of(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """The latest rows, and over the better of source only and AdaBN their `gain`, in points."""
    frame = pd.DataFrame([vars(row) for row in latest(rows)])
    frame["start"] = frame[list(BASELINES)].max(axis=1)
    frame["gain"] = frame.accuracy - frame.start
    return frame


def of_one_target(frame: pd.DataFrame) -> Iterator[Difference]:
    """Mixture weights against the input adapter, and against what the same numbers could be."""

    def by_seed(network: str, strategy: str, column: str = "accuracy") -> pd.Series:
        own = frame[(frame.network == network) & (frame.strategy == strategy)]
        own = own[~own.oracle | (own.trains == TRAINED[network])]
        return own.set_index("seed")[column]

    ours, side = by_seed(OURS, AUTO), SIDES[OURS]
    if ours.empty:
        return
    learned = frame[(frame.network == THEIRS) & ~frame.oracle & (frame.trains != "nothing")]
    if len(learned):
        best = str(learned.groupby("strategy").accuracy.mean().idxmax())
        apart = (ours - by_seed(THEIRS, best)).dropna()
        text = f"{side}, auto, over {SIDES[THEIRS]}, {display_name(best)}, its best (points)"
        yield Difference(text=text, values=list(apart), wanted=0)
    yield Difference(text=f"{side}, auto (percent)", values=list(ours), wanted=95)
    gained, room = by_seed(OURS, AUTO, "gain"), by_seed(OURS, ORACLE, "gain")
    text = f"{side}, auto, over the better start (points)"
    yield Difference(text=text, values=list(gained), wanted=0)
    seeds = [seed for seed in gained.index if seed in room.index]
    if seeds:
        share = 100 * fmean(gained[seeds]) / fmean(room[seeds])
        text = f"{side}, auto, share of the oracle's gain (percent, means over seeds)"
        yield Difference(text=text, values=[share], wanted=80)


def of_rotation(frame: pd.DataFrame) -> Iterator[Difference]:
    """`auto` and the oracle over the better start: mean over targets, and the least of a target.

    Of the seeds that have every target.
    """
    own = frame[frame.strategy.isin([AUTO, ORACLE]) & (frame.trains == frame.network.map(TRAINED))]
    kinds = own[["network", "strategy"]].drop_duplicates()
    for network, strategy in zip(kinds.network, kinds.strategy, strict=True):
        rows = own[(own.network == network) & (own.strategy == strategy)]
        gains = rows.pivot_table(index="seed", columns="target", values="gain").dropna()
        oracle = strategy == ORACLE
        name = f"{SIDES[network]}, {display_name(strategy, oracle)}"
        over, worst = f"{name}, over the better start (points)", str(gains.mean().idxmin())
        wanted = (None, None) if oracle else (3.0, -0.5)
        yield Difference(
            text=f"{over}, mean of targets", values=list(gains.mean(axis=1)), wanted=wanted[0]
        )
        yield Difference(
            text=f"{over}, least: {worst}", values=list(gains[worst]), wanted=wanted[1]
        )


def differences_markdown(rows: Iterable[ResultRow]) -> str:
    """A table for each recipe of a benchmark of one target, or of targets in turn."""
    frame = frame_of(rows)
    seeds = sorted(frame.seed.unique())
    header = ["", "mean", "95 % interval", "wanted"]
    lines = [header, ["---", *["--:"] * (len(header) - 1)]]
    for recipe, own in frame.groupby("recipe", sort=False):
        found = of_rotation(own) if own.target.nunique() > 1 else of_one_target(own)
        lines += [_line(str(recipe), difference) for difference in found]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = (
        "The better start: of source only and AdaBN the one with the higher test accuracy, seed by "
        "seed. The best strategy is read off these test accuracies, in favour of what it is of. "
        f"Interval: Student's, of the mean over seeds {', '.join(map(str, seeds))}."
    )
    return f"{text}\n\n{table}\n"


def _line(recipe: str, difference: Difference) -> list[str]:
    mean, margin, wanted = fmean(difference.values), difference.margin, difference.wanted
    interval = NONE if isnan(margin) else f"{mean - margin:.1f} to {mean + margin:.1f}"
    hoped = NONE
    if wanted is not None:
        hoped = f"at least {wanted:g}: {'yes' if mean >= wanted else 'no'}"
    return [f"{recipe}: {difference.text}", f"{mean:.1f}", interval, hoped]
