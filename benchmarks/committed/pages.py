"""The tables of README and of docs/, made from the committed rows."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from os.path import relpath
from pathlib import Path
from typing import Any

from benchmarks.harness.rows import ResultRow, read_lines, read_rows
from benchmarks.reliability.table import markdown as reliability_markdown
from benchmarks.reports.best_table import best_markdown
from benchmarks.reports.differences import differences_markdown
from benchmarks.reports.rotation_table import rotation_markdown
from benchmarks.reports.tables import GUIDE, markdown
from benchmarks.speed.benchmark import markdown as speed_markdown
from benchmarks.speed.benchmark import read_speed_rows
from benchmarks.studies.ablation import markdown as ablation_markdown
from benchmarks.studies.compose import markdown as compose_markdown
from benchmarks.studies.curve import markdown as curve_markdown
from benchmarks.studies.few_labels import markdown as few_labels_markdown
from benchmarks.studies.guard import markdown as guard_markdown
from benchmarks.studies.guard import summary
from benchmarks.studies.trust_table import markdown as trust_markdown
from benchmarks.studies.trust_table import summary as trust_summary
from benchmarks.tasks.claims import claims_markdown
from benchmarks.tasks.tables import TABLES as TASK_TABLES
from benchmarks.tasks.train import TaskRow, read_task_rows
from da_compose.storage.files import replacing
from da_compose.training.pretrained import PRETRAINED_RECIPES

PROFILE = "full"  # of the tables shown, unless it is named
MARKER = re.compile(r"<!-- table:([\w-]+) -->")


def of_rows(
    results: Path,
    name: str,
    render: Callable[[list[ResultRow]], str],
    profile: str = PROFILE,
    pretrained: bool = False,
) -> str:
    """A table of a benchmark's rows of a profile; nothing where there are none.

    pretrained: of those on published weights, else of those from scratch.
    """
    found = read_rows(results / name / "results.jsonl")
    rows = [
        row
        for row in found
        if row.profile == profile and (row.recipe in PRETRAINED_RECIPES) == pretrained
    ]
    return render(rows) if rows else ""


def of_lines(results: Path, name: str, render: Callable[[list[dict[str, Any]]], str]) -> str:
    """A table of all lines of a study; nothing where there are none."""
    lines = read_lines(results / name / "results.jsonl")
    return render(lines) if lines else ""


def of_speed(results: Path) -> str:
    """The table of speed comparisons; nothing where there are none."""
    rows = read_speed_rows(results / "speed")
    return speed_markdown(rows) if rows else ""


def of_tasks(results: Path, part: str, render: Callable[[list[TaskRow]], str]) -> str:
    """A table of one part of the tasks benchmark, on the data of its last row; or nothing."""
    found = read_task_rows(results / "tasks")
    rows = [row for row in found if row.profile == PROFILE and row.part == part]
    rows = [row for row in rows if row.data_fingerprint == rows[-1].data_fingerprint]
    return render(rows) if rows else ""


TABLES: Mapping[str, Callable[[Path], str]] = {
    "digits": partial(of_rows, name="digits", render=markdown),
    "digits-best": partial(of_rows, name="digits", render=best_markdown),
    "digits-differences": partial(of_rows, name="digits", render=differences_markdown),
    "digits-all": partial(of_rows, name="digits-all", render=rotation_markdown),
    "digits-all-differences": partial(of_rows, name="digits-all", render=differences_markdown),
    "guard": partial(of_lines, name="guard", render=lambda lines: guard_markdown(summary(lines))),
    "trust": partial(
        of_lines,
        name="trust",
        render=lambda lines: trust_markdown(trust_summary(lines)),
    ),
    "compose": partial(of_lines, name="compose", render=compose_markdown),
    "curve": partial(of_lines, name="curve", render=curve_markdown),
    "ablation": partial(of_lines, name="ablation", render=ablation_markdown),
    "few-labels": partial(of_lines, name="few_labels", render=few_labels_markdown),
    "pacs": partial(of_rows, name="pacs", render=rotation_markdown),
    "pacs-pretrained": partial(of_rows, name="pacs", render=rotation_markdown, pretrained=True),
    "satellite": partial(of_rows, name="satellite", render=rotation_markdown, pretrained=True),
    "emoji": partial(of_rows, name="emoji", render=markdown, profile="quick"),
    "emoji-pretrained": partial(
        of_rows, name="emoji", render=markdown, profile="quick", pretrained=True
    ),
    "reliability": partial(of_lines, name="reliability", render=reliability_markdown),
    "speed": of_speed,
    **{part: partial(of_tasks, part=part, render=make) for part, make in TASK_TABLES.items()},
    **{
        f"{part}-claims": partial(of_tasks, part=part, render=claims_markdown)
        for part in TASK_TABLES
    },
}


def linked(table: str, page: Path, root: Path) -> str:
    """A table whose captions link to the page that says how it is read."""
    words, _, target = GUIDE.partition(": ")
    return table.replace(GUIDE, f"[{words}]({relpath(root / target, page.parent)})")


def insert_between_markers(text: str, name: str, block: str) -> str:
    """Replace what stands between `<!-- table:NAME -->` and `<!-- /table:NAME -->`."""
    start, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError(
            f"expected {start} and then {end} in the text, got "
            f"{'only the first' if found_start else 'no start marker'}; add both lines"
        )
    return f"{before}{start}\n\n{block.strip()}\n\n{end}{after}"


def update_pages(readme: Path, results: Path) -> None:
    """Make anew what stands between the markers of README and of the pages in docs/ beside it.

    A table without rows is left as it is. Raises ValueError where there are rows of none, a table
    with rows has no markers in any page, or a page has markers of an unknown one; all pages are
    then left as they were.
    """
    pages = [readme, *sorted((readme.parent / "docs").glob("*.md"))]
    before = {page: page.read_text(encoding="utf-8") for page in pages}
    made = {name: table for name, make in TABLES.items() if (table := make(results))}
    if not made:
        raise ValueError(f"no rows of profile {PROFILE!r} in {results} to put into {readme}")
    marked = {name for text in before.values() for name in MARKER.findall(text)}
    if unknown := sorted(marked - set(TABLES)):
        raise ValueError(f"no table {', '.join(unknown)}; there are: {', '.join(TABLES)}")
    if lacking := [name for name in made if name not in marked]:
        raise ValueError(
            f"no page has <!-- table:{lacking[0]} --> and <!-- /table:{lacking[0]} -->; add both "
            f"lines to {readme} or to a page of docs/ beside it"
        )
    after = {}
    for page, text in before.items():
        for name in MARKER.findall(text):
            if name in made:
                text = insert_between_markers(text, name, linked(made[name], page, readme.parent))
        after[page] = text
    for page, text in after.items():
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
