"""Speed comparisons at a glance: each ratio beside its goal."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.reports.plots import DPI, save_figure
from benchmarks.speed.compare import SpeedRow

LEFT_OUT = ("scale", "growth", "allocation")  # suites whose ratios are of sizes and counts


def plot_ratios(rows: Sequence[SpeedRow], path: Path) -> None:
    """A line a comparison: its ratio as a point, hollow below the goal, and the goal as a bar.

    Nothing is written where there is none to show.
    """
    shown = [row for row in rows if row.name.partition("/")[0] not in LEFT_OUT]
    if not shown:
        return
    figure = Figure(figsize=(8, 1.2 + 0.24 * len(shown)), dpi=DPI, layout="constrained")
    panel = figure.subplots()
    panel.axvline(1, color="0.6", linewidth=1)
    for place, row in enumerate(shown):
        missed = row.target is not None and row.ratio < row.target
        colour = "tab:orange" if missed else "tab:blue"
        panel.plot([1, row.ratio], [place, place], color=colour, linewidth=1.2)
        panel.plot(
            row.ratio, place, "o", color=colour, markerfacecolor="white" if missed else colour
        )
        if row.target is not None:
            panel.plot(row.target, place, "|", color="black", markersize=9)
    panel.set_xscale("log")
    panel.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    panel.minorticks_off()
    panel.set_yticks(range(len(shown)), [row.name for row in shown], fontsize=8)
    panel.invert_yaxis()
    panel.grid(axis="x", color="0.9")
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel(
        "How many times faster than what it is compared with (bar: the goal)", fontsize=9
    )
    save_figure(figure, path, "")
