"""The table of a benchmark whose domains are the target in turn: a line a strategy."""

from collections.abc import Iterable

import pandas as pd

from benchmarks.harness.rows import ResultRow, latest
from benchmarks.reports.tables import (
    GUIDE,
    SIDES,
    TRAINED,
    bounded,
    data_line,
    display_name,
    rank,
    settings_line,
)

KEY = ["oracle", "strategy", "trains"]
PARTED = ("benchmark", "profile", "data_fingerprint", "recipe", "network")


def rotation_frame(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """Accuracy of one network by strategy: a column a target, their mean, and gains over AdaBN.

    Columns besides the targets' (percent, means over seeds): `std`, a target -> standard deviation
    over seeds, `mean` over targets and its `mean_std` over seeds, `gain` over AdaBN (mean over
    targets, points), `least` (the smallest of a target) and `over_start`, the smallest over the
    better of source-only and AdaBN. Lines are in the order of all tables.
    """
    frame = pd.DataFrame([vars(row) for row in rows])
    frame["gain"] = frame.accuracy - frame.batch_norm
    frame["over_start"] = frame.accuracy - frame[["source_only", "batch_norm"]].max(axis=1)
    lines = []
    for _, own in frame.groupby(KEY, sort=False):
        of_target = own.groupby("target")
        means = of_target.accuracy.mean()
        of_seed = own.pivot_table(index="seed", columns="target", values="accuracy")
        over_targets = of_seed.dropna().mean(axis=1)  # of the seeds that have every target
        lines.append(
            own[KEY].iloc[0].to_dict()
            | means.to_dict()
            | {
                "std": of_target.accuracy.std().to_dict(),
                "mean": means.mean(),
                "mean_std": over_targets.std(),
                "gain": of_target.gain.mean().mean(),
                "least": of_target.gain.mean().min(),
                "over_start": of_target.over_start.mean().min(),
            }
        )
    return pd.DataFrame(lines).sort_values(KEY, key=rank, ignore_index=True)


def rotation_markdown(rows: Iterable[ResultRow]) -> str:
    """One captioned table for each network, with every target's accuracy and the gains."""
    parted: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in latest(rows):
        parted.setdefault(tuple(str(getattr(row, name)) for name in PARTED), []).append(row)
    if not parted:
        raise ValueError("expected result rows, got none; run the benchmark first")
    return "\n".join(_table(own) for own in parted.values())


def _table(rows: list[ResultRow]) -> str:
    frame = rotation_frame(rows)
    targets = sorted({row.target for row in rows})
    header = ["Strategy", *targets, "mean", "gain", "least gain", "over the better start"]
    lines = [header]
    for line in frame.to_dict("records"):
        name = display_name(line["strategy"], line["oracle"])
        shown = TRAINED[line["trains"]]
        if shown not in ("", SIDES[rows[0].network]):
            name += f", {shown}"
        cells = [_spread(line.get(t, float("nan")), line["std"].get(t)) for t in targets]
        whole = [_spread(line["mean"], line["mean_std"])]
        whole += [f"{line[part]:+.1f}" for part in ("gain", "least", "over_start")]
        if "-" in cells:  # what is of fewer targets is not to be read beside the others
            whole = ["-"] * len(whole)
        lines.append([name, *cells, *whole])
    return f"{_caption(rows)}\n\n{bounded(lines, int((~frame.oracle).sum()))}\n"


def _spread(mean: float, std: float | None) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.1f}" if std is None or pd.isna(std) else f"{mean:.1f} ± {std:.1f}"


def _caption(rows: list[ResultRow]) -> str:
    first = rows[0]
    return (
        f"{first.benchmark}, {first.network} network, {SIDES[first.network]}; every domain the "
        f"target in turn, the others sources; {data_line(first)}.\n"
        f"{settings_line(rows)}.\n"
        f"Test accuracy in percent ± deviation over seeds; gains in points. {GUIDE}"
    )
