"""What `da-compose bench` says of its rows: as they come, and in three lines at the end."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.config import UNLEARNED
from adapters.parts import DIRECTED, MIXED
from benchmarks.harness.plan import TRAINED, Benchmark
from benchmarks.harness.rows import ResultRow, latest, read_rows
from benchmarks.reports.tables import TRAINED as SHOWN
from benchmarks.reports.tables import display_name, groups, terminal
from da_compose.progress import remark
from da_compose.training.pretrained import PretrainedRecipe

FIRST_ROWS = 4  # of one backbone before the first table: what learns nothing, one that learns
FIRST_GAP = 60.0  # seconds between the first two tables; each gap is twice the one before
NOTHING_LEARNED = ("source_only", "batch_norm", "chosen_start")
BACKBONE = ("recipe", "network", "seed", "target")
OWN = "compositional"  # the network that is ours


class RowsSeen:
    """Tells of new rows, a line each, and now and then a table of all of this run's."""

    def __init__(self, results: Path, own: set[tuple[str, str]]) -> None:
        self.results, self.own = results / "results.jsonl", own
        self.rows: Counter[tuple[str, ...]] = Counter()  # of each backbone
        self.gap, self.due = FIRST_GAP, 0.0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            what = display_name(row["strategy"], row["oracle"])
            trained = SHOWN.get(row["trains"]) or "learns nothing"
            remark(
                f"{row['recipe']} {row['network']} seed {row['seed']} -> {row['target']}: {what} "
                f"({trained}): {row['accuracy']:.2f} %"
            )
        self.rows.update(tuple(str(row[name]) for name in BACKBONE) for row in rows)
        now = time.monotonic()
        if max(self.rows.values()) >= FIRST_ROWS and now >= self.due:
            self.due, self.gap = now + self.gap, 2 * self.gap
            for group in own_groups(read_rows(self.results), self.own):
                remark(terminal(group))


def own_groups(rows: Sequence[ResultRow], own: set[tuple[str, str]]) -> list[list[ResultRow]]:
    """The groups of rows of these profiles and data, by name and fingerprint."""
    return groups(row for row in rows if (row.profile, row.data_fingerprint) in own)


def closing(
    benchmark: Benchmark, rows: Sequence[ResultRow], results: Path, backbone: Path | None
) -> Iterator[str]:
    """What was found, where it is, and what to do next."""
    yield "found: " + "; ".join(found(benchmark, rows))
    yield f"tables and pictures: {results} (table.md; what changed: *-changed.png, *-confusion.png)"
    if backbone is None:
        yield "next: your own pictures, docs/guides/shell.md"
        return
    yield (
        f"next: da-compose adapt --backbone {backbone} --images FOLDER --out adapter.safetensors "
        "--report report.html"
    )


def found(benchmark: Benchmark, rows: Sequence[ResultRow]) -> Iterator[str]:
    """Of each recipe what nothing, AdaBN and the usual strategy reach, and the bound."""
    recipes = dict.fromkeys(row.recipe for row in rows)
    for recipe in recipes:
        of_recipe = [row for row in latest(rows) if row.recipe == recipe]
        network = OWN if any(row.network == OWN for row in of_recipe) else of_recipe[0].network
        own = [row for row in of_recipe if row.network == network]
        parts = {display_name(name): _mean(own, name) for name in NOTHING_LEARNED}
        usual = MIXED if not isinstance(benchmark.recipes[recipe], PretrainedRecipe) else DIRECTED
        learned = [row.strategy for row in own if row.strategy not in (*UNLEARNED, "oracle")]
        best = usual.tries[0] if usual.tries[0] in learned else next(iter(learned), None)
        trains = TRAINED[network]
        if best is not None:
            name = f"{display_name(best)} ({SHOWN[trains]})"
            parts[name] = _mean(own, best, trains)
        if any(row.oracle and row.trains == trains for row in own):
            parts["a bound, with target labels"] = _mean(own, "oracle", trains)
        targets = [*dict.fromkeys(row.target for row in own)]
        where = targets[0] if len(targets) == 1 else f"{len(targets)} targets, on average"
        said = ", ".join(f"{name} {value:.1f} %" for name, value in parts.items() if value >= 0)
        yield f"{recipe} on {where}: {said}"


def _mean(rows: Sequence[ResultRow], strategy: str, trains: str | None = None) -> float:
    """Mean accuracy over seeds and targets; -1 where there is none."""
    values = [
        row.accuracy for row in rows
        if row.strategy == strategy and (trains is None or row.trains == trains)
    ]  # fmt: skip
    return sum(values) / len(values) if values else -1.0
