"""Where benchmarks and studies write: `runs/<name>` of the working directory.

Trained networks and adapters lie there, rows, tables and plots in its `results/`. The committed
results of a checkout are changed by `da-compose publish` alone.
"""

from pathlib import Path

RUNS = Path("runs")
ROWS = "results.jsonl"


def runs_of(name: str) -> Path:
    """The usual folder of a benchmark or study."""
    return RUNS / name


def results_of(runs: Path, named: Path | None = None) -> Path:
    """The folder of results that a user names, else the usual one of these runs."""
    return runs / "results" if named is None else named


def folder_of_rows(folder: Path) -> Path:
    """The folder itself, or its `results/` where the rows are there."""
    inside = results_of(folder)
    return inside if (inside / ROWS).is_file() else folder
