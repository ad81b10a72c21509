"""A benchmark at a glance: the lines of `best_table`, a panel a recipe or a target."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.rows import ALLOWED, ResultRow
from benchmarks.reports.best_table import LINES, best
from benchmarks.reports.plots import DPI, save_figure
from benchmarks.reports.tables import data_line


def plot_best(rows: Sequence[ResultRow], path: Path) -> None:
    """Accuracy of what learns nothing, of the best strategies, and the bound (mean ± std).

    A panel a recipe of one target; of several targets a panel a target, of the recipe with most
    rows.
    """
    panels = {title: best(own) for title, own in _panels(rows).items()}
    names = [name for name in LINES if any(found[name] for found in panels.values())]
    figure = Figure(figsize=(2.2 + 2.6 * len(panels), 2.9), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("Test accuracy (%)", fontsize=9)
        axis.grid(axis="x", color="0.9")
        axis.margins(x=0.15, y=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        for place, name in enumerate(names):
            if record := found[name]:
                _draw(axis, place, record)
    axes[0].set_yticks(range(len(names)), [name.strip("*") for name in names], fontsize=9)
    axes[0].invert_yaxis()
    save_figure(figure, path, f"{rows[0].benchmark}; {data_line(rows[0])}; mean ± deviation")


def _draw(axis: Axes, place: int, record: dict[str, Any]) -> None:
    """One result: a point with its spread and its number; a bound is hollow."""
    learns = "tab:blue" if record["trains"] != "nothing" else "0.4"
    colour = "tab:green" if record["oracle"] else learns
    axis.errorbar(
        record["accuracy"], place, xerr=record["std"] if len(record["seeds"]) > 1 else None,
        color=colour, marker="o", capsize=3,
        markerfacecolor="white" if record["oracle"] else colour,
    )  # fmt: skip
    axis.annotate(
        f"{record['accuracy']:.1f}", (record["accuracy"], place), xytext=(0, 6),
        textcoords="offset points", ha="center", fontsize=8, color=colour,
    )  # fmt: skip


def _panels(rows: Sequence[ResultRow]) -> dict[str, list[ResultRow]]:
    """Title of a panel -> its rows."""
    counts = Counter(row.recipe for row in rows)
    targets = sorted({row.target for row in rows})
    if len(targets) == 1:
        recipes = [name for name in ALLOWED["recipe"] if name in counts]
        return {f"recipe {name}": [r for r in rows if r.recipe == name] for name in recipes}
    full, _ = counts.most_common(1)[0]
    return {
        f"to {name}": [r for r in rows if (r.target, r.recipe) == (name, full)] for name in targets
    }
