"""`da-compose bench speed`: all comparisons, to rows and a table."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.harness.plan import NETWORKS
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import GUIDE
from benchmarks.speed.accuracy import compare_time_to_accuracy
from benchmarks.speed.allocation import compare_allocation
from benchmarks.speed.compare import SpeedRow
from benchmarks.speed.growth import compare_growth, plot_growth
from benchmarks.speed.on_device import compare_on_gpu
from benchmarks.speed.pictures import compare_pictures
from benchmarks.speed.plot import plot_ratios
from benchmarks.speed.prediction import compare_prediction
from benchmarks.speed.scale import compare_scale
from benchmarks.speed.setting import Setting
from benchmarks.speed.step import compare_precisions, compare_steps
from benchmarks.speed.training import compare_pretraining
from da_compose.progress import duration, remark, show_progress
from da_compose.storage.files import replacing

GPU, PICTURES, GROWTH, BUDGETS = "gpu", "pictures", "growth", "budgets"
SUITES: dict[str, Callable[[Setting], Iterator[SpeedRow]]] = {
    "step": compare_steps,
    "precision": compare_precisions,
    "time_to_accuracy": compare_time_to_accuracy,
    "pretrain": compare_pretraining,
    "predict": compare_prediction,
    "scale": compare_scale,
    "allocation": compare_allocation,
    PICTURES: compare_pictures,
    GROWTH: compare_growth,
    GPU: compare_on_gpu,
}
QUESTIONS = {  # what a suite answers, above its table
    "step": "Is a step of adaptation faster?",
    "time_to_accuracy": "Is an accuracy reached sooner?",
    "pretrain": "What does mixing cost in pretraining?",
    "predict": "How fast is prediction?",
    "scale": "How large are files, and what do many domains take?",
    "precision": "What does bfloat16 bring?",
    "allocation": "What does memory that is kept bring?",
    PICTURES: "How fast is a pretrained network on pictures?",
    GROWTH: "And with ever more pictures and domains?",
    BUDGETS: "When are others as accurate on real pictures (PACS)?",
    GPU: "What does a GPU bring?",
}
HEADER = ("Comparison", "Against", "Ours", "Other", "Ratio", "Goal")


def bench_speed(
    setting: Setting, suites: tuple[str, ...], folder: Path, say: Callable[[str], None]
) -> None:
    """Measure the suites with one thread, append their rows, and write the table.

    The suite `gpu` is left out where there is none.
    """
    if GPU in suites and not torch.cuda.is_available():
        say(f"note: the suite {GPU} is left out, there is no CUDA device")
        suites = tuple(name for name in suites if name != GPU)
        if not suites:
            return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trains = replace(setting, device="cuda") if torch.cuda.is_available() else setting
        for network in NETWORKS if {*suites} - {PICTURES, GROWTH} else ():
            trains.backbone(network)  # pretrained now, where it is missing
        started = time.monotonic()
        for number, suite in enumerate(suites, 1):
            spent = duration(time.monotonic() - started)
            remark(f"measuring {suite}, suite {number} of {len(suites)}, {spent} so far")
            with show_progress(False):  # a bar that is drawn would be measured too
                for row in SUITES[suite](setting):
                    append_line(folder / "results.jsonl", asdict(row))
                    say(f"{row.name}: {shown(row.ours)} against {shown(row.other)} {row.unit}, "
                        f"ratio {shown(row.ratio)} ({row.against})")  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    write_table(folder)
    say(f"table: {folder / 'table.md'}")


def read_speed_rows(folder: Path) -> list[SpeedRow]:
    """The latest row of every comparison, in the order in which they first appeared."""
    rows = [SpeedRow(**line) for line in read_lines(folder / "results.jsonl")]
    return list({row.name: row for row in rows}.values())


def markdown(rows: list[SpeedRow]) -> str:
    """A caption, and a table a question; a ratio below its goal is in italics."""
    if not rows:
        raise ValueError("expected speed rows, got none; run `da-compose bench speed` first")
    versions = ", ".join(f"{name} {number}" for name, number in rows[-1].versions.items())
    parts = [
        "Ratio above 1: ours is better; below its goal: in italics. Medians of calls in turn. "
        f"{GUIDE}\nVersions: {versions}.\n"
    ]
    for suite in {row.name.partition("/")[0]: None for row in rows}:
        own = [row for row in rows if row.name.startswith(f"{suite}/")]
        kinds = list({_kind(row): None for row in own})
        lines = [HEADER, ("---", "---", "--:", "--:", "--:", "--:")]
        lines += map(_line, sorted(own, key=lambda row: kinds.index(_kind(row))))
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        machines = sorted({f"{row.device}, {row.threads} thread(s)" for row in own})
        asked = f"{QUESTIONS.get(suite, suite)} ({'; '.join(machines)})"
        parts.append(f"{asked}\n\n{table}\n")
    return "\n".join(parts)


def _kind(row: SpeedRow) -> str:
    """What rows of one suite that came at different times have in common."""
    return "/".join(row.name.split("/")[:2])


def _line(row: SpeedRow) -> tuple[str, ...]:
    missed = row.target is not None and row.ratio < row.target
    ratio = f"*{shown(row.ratio)}*" if missed else shown(row.ratio)
    goal = "-" if row.target is None else f"{row.target:g}"
    values = (f"{shown(value)} {row.unit}" for value in (row.ours, row.other))
    return row.name.partition("/")[2], row.against, *values, ratio, goal


def shown(value: float) -> str:
    """Three significant digits, with separators."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_table(folder: Path) -> None:
    """The table and the plots from all rows of the folder, each replaced whole."""
    rows = read_speed_rows(folder)
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(markdown(rows), encoding="utf-8")
    plot_ratios(rows, folder / "ratios.png")
    plot_growth(rows, folder / "growth.png")
