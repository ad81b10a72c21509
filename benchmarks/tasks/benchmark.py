"""`da-compose bench tasks`: rows, a table a part, the claims and the figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.cells import BACKBONE
from benchmarks.harness.grid import run_grid
from benchmarks.harness.watch import Training, Watch, watched
from benchmarks.tasks.claims import claims_markdown
from benchmarks.tasks.plan import TaskData, TaskProfile, plan_tasks
from benchmarks.tasks.plots import plot_few_shots, plot_organization
from benchmarks.tasks.tables import TABLES, source_of
from benchmarks.tasks.train import TaskRow, in_words, read_task_rows, run_job, unfinished
from da_compose.progress import remark
from da_compose.storage.files import replacing

CLAIMS = "claims"
FIGURES = {
    "tasks": (plot_organization, "organization"),
    "transfer": (plot_few_shots, "few-shots"),
}


def bench_tasks(
    profile: TaskProfile,
    data: TaskData,
    *,
    parts: tuple[str, ...],
    runs: Path,
    results: Path,
    say: Callable[[str], None],
    **grid: Any,
) -> None:
    """Run every unfinished cell of the parts, then make tables and figures of all rows.

    grid: options of `run_grid`.
    """
    chosen = data.chosen
    say(f"tasks: {', '.join(chosen.tasks)}; then: {', '.join(chosen.transfer)}")
    say(f"data: {chosen.origin}")
    for note in chosen.notes:
        say(f"note: {note}")
    rows, todo, trainings = read_task_rows(results), [], {}
    for job in plan_tasks(profile, data, parts):
        folder, name = job.folder(runs), f"{job.part}, {job.setting}, seed {job.seed}"
        cells = unfinished(job, runs, rows)
        if not cells:
            remark(f"{name}: finished earlier")
            continue
        todo.append((job, cells))
        if not (folder / BACKBONE).exists():
            trainings[folder] = Training(name=name, folder=folder, steps=job.pretraining.steps)
    if todo:
        number = sum(len(cells) for _, cells in todo)
        new = sum(cell.start != "" for _, cells in todo for cell in cells)  # those that learn
        watch = Watch(
            [*trainings.values()], number, profile.transfer_steps * new / number,
            results / "results.jsonl", lambda rows: [remark(in_words(row)) for row in rows],
        )  # fmt: skip
        shared = (data, runs.absolute(), results.absolute())  # the processes may be elsewhere
        with watched("benchmark", watch):
            run_grid(run_job, [job for job, _ in todo], shared, **grid)
    write_task_report(results)


def write_task_report(folder: Path) -> None:
    """For every profile and data of the rows: a table a part, the claims, the figures."""
    parted: dict[str, list[TaskRow]] = {}
    for row in read_task_rows(folder):
        parted.setdefault(f"{row.profile}-{row.data_fingerprint[:6]}", []).append(row)
    for name, rows in parted.items():
        for part, text in texts(rows).items():
            with replacing(folder / f"{name}-{part}.md") as temporary:
                temporary.write_text(text, encoding="utf-8")
        for part, (draw, figure) in FIGURES.items():
            if own := [row for row in rows if row.part == part]:
                draw(own, folder / f"{name}-{figure}.png", source_of(own))


def texts(rows: Sequence[TaskRow]) -> dict[str, str]:
    """The Markdown of each part that has rows, and of the claims: rows of one profile and data."""
    found = {}
    for part, make in TABLES.items():
        if own := [row for row in rows if row.part == part]:
            found[part] = make(own)
    return found | {CLAIMS: claims_markdown(rows)}
