"""Rows of one's own runs go into the committed results of a checkout; tables and plots follow."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.digit_benchmark import DIGITS
from benchmarks.harness.folders import ROWS, folder_of_rows
from benchmarks.harness.picture_benchmarks import PICTURES
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reliability.table import by_part
from benchmarks.reports.report import write_report
from benchmarks.speed.benchmark import write_table
from benchmarks.studies import (
    ablation,
    compose,
    curve,
    few_labels,
    guard,
    memory,
    selection,
    trust_table,
    tuning,
)
from benchmarks.tasks.benchmark import write_task_report
from da_compose.storage.files import replacing


def of_study(render: Callable[[list[dict[str, Any]]], str]) -> Callable[[Path], None]:
    """What makes a study's one table, from all lines of a folder."""

    def draw(folder: Path) -> None:
        with replacing(folder / "table.md") as temporary:
            temporary.write_text(render(read_lines(folder / ROWS)), encoding="utf-8")

    return draw


DRAW: Mapping[str, Callable[[Path], object]] = {
    **dict.fromkeys((DIGITS.name, "digits-all", *PICTURES), write_report),
    "tasks": write_task_report,
    "speed": write_table,
    "ablation": of_study(ablation.markdown),
    "compose": of_study(compose.markdown),
    "curve": curve.render,
    "few_labels": of_study(few_labels.markdown),
    "guard": of_study(lambda lines: guard.markdown(guard.summary(lines))),
    "trust": trust_table.render,
    "memory": of_study(memory.table),
    "reliability": of_study(by_part),
    "selection": of_study(lambda lines: selection.markdown(selection.summary(lines))),
    "tuning": of_study(tuning.table),
}


def publish_runs(runs: Path, committed: Path) -> tuple[Path, int]:
    """Add rows of `runs/<name>` to `committed/<name>`; that folder, and how many were new to it.

    Plots of single backbones, which rows do not make, stay with the runs. Raises ValueError where
    there are no rows, or the folder has the name of no benchmark or study; nothing is changed then.
    """
    source = folder_of_rows(runs.resolve())
    name = source.parent.name if source.name == "results" else source.name
    if name not in DRAW:
        raise ValueError(
            f"{runs} has the name of no benchmark or study; expected the folder of its runs, "
            f"named {', '.join(DRAW)}"
        )
    lines = read_lines(source / ROWS)
    if not lines:
        raise ValueError(f"no rows in {source}; run the benchmark or study {name} first")
    target = committed / name
    if source == target.resolve():
        raise ValueError(f"{source} are the committed results themselves; name a folder of runs")
    new = list(_without(lines, read_lines(target / ROWS)))
    for line in new:
        append_line(target / ROWS, line)
    DRAW[name](target)
    return target, len(new)


def _without(
    lines: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Lines that are not among the others."""
    known = {json.dumps(line, sort_keys=True) for line in others}
    return [line for line in lines if json.dumps(line, sort_keys=True) not in known]
