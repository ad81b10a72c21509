"""README's tables, made from the committed rows."""

from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.results import read_rows
from benchmarks.rotation_table import rotation_markdown
from benchmarks.speed.bench import markdown as speed_markdown
from benchmarks.speed.bench import read_speed_rows
from benchmarks.tables import insert_between_markers, markdown
from benchmarks.tasks.bench import texts
from benchmarks.tasks.claims import claims_markdown
from benchmarks.tasks.run import TaskRow, read_task_rows
from benchmarks.tasks.tables import TABLES as TASK_TABLES
from da_compose.files import replacing

PROFILE = "full"  # of the tables shown, unless it is named


def of_rows(render: Callable[..., str], profile: str = PROFILE) -> Callable[[Path], str]:
    """A table of the profile's rows in a folder; nothing where there are none."""

    def table(folder: Path) -> str:
        rows = [row for row in read_rows(folder / "results.jsonl") if row.profile == profile]
        return render(rows) if rows else ""

    return table


def of_speed(folder: Path) -> str:
    """The table of speed comparisons in a folder; nothing where there are none."""
    rows = read_speed_rows(folder)
    return speed_markdown(rows) if rows else ""


def full_task_rows(folder: Path) -> list[TaskRow]:
    """Rows of the tasks benchmark of profile full, on the data of the last of them."""
    rows = [row for row in read_task_rows(folder) if row.profile == PROFILE]
    last = rows[-1].data_fingerprint if rows else ""
    return [row for row in rows if row.data_fingerprint == last]


def of_claims(folder: Path) -> str:
    """The paper's claims beside our margins; nothing where there are no rows."""
    rows = full_task_rows(folder)
    return claims_markdown(rows) if rows else ""


TABLES: Mapping[str, Callable[[Path], str]] = {
    "digits": of_rows(markdown),
    "pacs": of_rows(rotation_markdown),
    "emoji": of_rows(markdown, "quick"),
    "tasks": of_claims,
    "speed": of_speed,
}


def update_docs(docs: Path, results: Path) -> None:
    """Make anew the tables of `docs/signatures.md` and the like, each part's own, and its claims.

    Raises ValueError where a page lacks markers.
    """
    rows = full_task_rows(results / "tasks")
    for part in TASK_TABLES:
        if own := [row for row in rows if row.part == part]:
            page = docs / f"{part}.md"
            text = page.read_text(encoding="utf-8")
            for name, table in texts(own).items():
                text = insert_between_markers(text, name, table)
            with replacing(page) as temporary:
                temporary.write_text(text, encoding="utf-8")


def update_readme(readme: Path, results: Path) -> None:
    """Make anew what stands between README's markers, each table from its folder in `results`.

    A table without rows is left as it is. Raises ValueError where there are rows of none, or where
    README lacks the markers of one; README is then left as it was.
    """
    text = readme.read_text(encoding="utf-8")
    found = {name: make(results / name) for name, make in TABLES.items()}
    if not any(found.values()):
        raise ValueError(f"no rows of profile {PROFILE!r} in {results} to put into {readme}")
    for name, table in found.items():
        if table:
            text = insert_between_markers(text, name, table)
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
