"""`da-compose bench tasks`: rows, a table a part, the claims and the figure."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.grid import run_grid
from benchmarks.tasks.claims import claims_markdown
from benchmarks.tasks.plan import TaskData, TaskProfile, plan_tasks
from benchmarks.tasks.plots import plot_organization
from benchmarks.tasks.run import TaskRow, read_task_rows, run_job
from benchmarks.tasks.tables import TABLES
from da_compose.files import replacing

CLAIMS = "claims"


def bench_tasks(
    profile: TaskProfile,
    data: TaskData,
    *,
    parts: tuple[str, ...],
    runs: Path,
    results: Path,
    processes: int,
    say: Callable[[str], None],
) -> None:
    """Run every unfinished cell of the parts, then make tables and figure of all rows."""
    chosen = data.chosen
    say(f"tasks: {', '.join(chosen.tasks)}; then: {', '.join(chosen.transfer)}")
    say(f"data: {chosen.origin}")
    for note in chosen.notes:
        say(f"note: {note}")
    jobs = plan_tasks(profile, data, parts)
    run_grid(run_job, jobs, (data, runs, results), processes=processes)
    write_task_report(results)


def write_task_report(folder: Path) -> None:
    """For every profile and data of the rows: a table a part, the claims, the figure."""
    parted: dict[str, list[TaskRow]] = {}
    for row in read_task_rows(folder):
        parted.setdefault(f"{row.profile}-{row.data_fingerprint[:6]}", []).append(row)
    for name, rows in parted.items():
        for part, text in texts(rows).items():
            with replacing(folder / f"{name}-{part}.md") as temporary:
                temporary.write_text(text, encoding="utf-8")
        if joint := [row for row in rows if row.part == "tasks"]:
            first, seeds = joint[0], sorted({row.seed for row in joint})
            caption = f"tasks, data: {first.data}, profile {first.profile}, seeds: {seeds}"
            plot_organization(joint, folder / f"{name}-organization.png", caption)


def texts(rows: Sequence[TaskRow]) -> dict[str, str]:
    """The Markdown of each part that has rows, and of the claims: rows of one profile and data."""
    found = {}
    for part, make in TABLES.items():
        if own := [row for row in rows if row.part == part]:
            found[part] = make(own)
    return found | {CLAIMS: claims_markdown(rows)}
