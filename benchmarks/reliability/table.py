"""Tables of a campaign's rows: by kind, and by what was tried of each."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.reliability.outcome import VERDICTS
from benchmarks.reports.tables import GUIDE

Row = Mapping[str, Any]
COUNTS = ("tried", *VERDICTS)
RUN = ("profile", "seed")
TITLES = {
    "kills": "Commands killed, then started again",
    "workers": "The same in two processes",
    "mutations": "Files damaged or forged",
    "pictures": "Broken pictures among good ones",
    "disks": "A disk that is full",
    "streams": "Long streams with noise",
    "threads": "Eight threads at once",
    "inputs": "Inputs of every type",
}


def last_run(rows: Iterable[Row]) -> list[Row]:
    """The last row of each part, of the profile and seed that the last row is of.

    A kind may have been tried again alone, at a later commit; parts that it no longer has are gone.
    """
    listed = list(rows)
    ours = [row for row in listed if all(row[name] == listed[-1][name] for name in RUN)]
    last = {row["kind"]: row["commit"] for row in ours}
    ours = [row for row in ours if row["commit"] == last[row["kind"]]]
    return list({(row["kind"], row["part"]): row for row in ours}.values())


def markdown(rows: Iterable[Row]) -> str:
    """Trials of the last run by kind, with what was measured on top."""
    listed = last_run(rows)
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in listed):
        of_kind = [row for row in listed if row["kind"] == kind]
        sums = [sum(row[name] for row in of_kind) for name in COUNTS]
        lines.append([TITLES.get(kind, kind), *map(_counted, sums)])
    sums = [sum(row[name] for row in listed) for name in COUNTS]
    lines.append(["All", *map(_counted, sums)])
    return caption(listed) + "\n" + _table(["What was tried", *_heads()], lines)


def by_part(rows: Iterable[Row]) -> str:
    """The same by part of each kind, and every trial that was wrong."""
    listed = last_run(rows)
    lines = [[row["kind"], row["part"], *(_counted(row[name]) for name in COUNTS)]
             for row in listed]  # fmt: skip
    wrong = [f"- {row['kind']} {found}" for row in listed for found in row["found"]]
    found = "\n".join(["", "Wrong:", "", *wrong, ""]) if wrong else ""
    return caption(listed) + "\n" + _table(["Kind", "What", *_heads()], lines) + found


def caption(rows: Sequence[Row]) -> str:
    """What was measured, and where."""
    row = rows[-1]
    versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    minutes = sum({row["kind"]: row["seconds_of_kind"] for row in rows}.values()) / 60
    of_kind = {row["kind"]: row["commit"] for row in rows}
    usual = Counter(of_kind.values()).most_common(1)[0][0]
    again = [f"{kind}: {commit}" for kind, commit in of_kind.items() if commit != usual]
    return (
        f"Trials of profile {row['profile']}, seed {row['seed']}, {minutes:.0f} minutes on one "
        f"core; commit {', '.join([usual, *again])}. {GUIDE}\n{row['device']}; {versions}.\n"
    )


def _heads() -> list[str]:
    return ["Tried", "Right", "Refused clearly", "Wrong"]


def _counted(number: int) -> str:
    return f"{number:,}"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    numbers = len(COUNTS)
    rule = [*["---"] * (len(header) - numbers), *["--:"] * numbers]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines]) + "\n"
