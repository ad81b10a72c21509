"""The few lines that a newcomer needs of a benchmark: what learns nothing, the best, the bound."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.harness.rows import ALLOWED, ResultRow
from benchmarks.reports.tables import GUIDE, NONE, groups, source_line, summarize

LINES: Mapping[str, str] = {
    "Source only": "strategy == 'source_only' and network == 'compositional'",
    "AdaBN": "strategy == 'batch_norm' and network == 'compositional'",
    "Chosen start, nothing learned": "strategy == 'chosen_start' and network == 'compositional'",
    "Best strategy on 64 ξ": "trains == 'mixture_weights' and not oracle",
    "Best strategy on an input adapter": "trains == 'input_adapter' and not oracle",
    "*Bound: 64 ξ with target labels*": "trains == 'mixture_weights' and oracle",
}


def best_markdown(rows: Iterable[ResultRow]) -> str:
    """A table a group of rows: a line for each of `LINES`, a column for each recipe.

    The best is read off the test accuracies shown.
    """
    return "\n".join(_table(group) for group in groups(rows))


def best(rows: Iterable[ResultRow]) -> dict[str, dict[str, Any] | None]:
    """Each of `LINES` -> the summary of the best that it names, of rows of one recipe; or None."""
    summary, found = summarize(rows), {}
    for title, wanted in LINES.items():
        records = summary.query(wanted).to_dict("records")
        found[title] = max(records, key=lambda record: record["accuracy"], default=None)
    return found


def _table(rows: list[ResultRow]) -> str:
    parts = {name: [row for row in rows if row.recipe == name] for name in ALLOWED["recipe"]}
    parts = {name: own for name, own in parts.items() if own}
    seeds = [f"{len({row.seed for row in own})} ({name})" for name, own in parts.items()]
    found = [best(own) for own in parts.values()]
    lines = [["", *parts], ["---", *["--:"] * len(parts)]]
    lines += [[title, *(_shown(of_recipe[title]) for of_recipe in found)] for title in LINES]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    caption = (
        f"{source_line(rows[0])}.\n"
        f"Test accuracy in percent ± deviation over seeds: {', '.join(seeds)}. "
        f"Best: read off these accuracies.\n{GUIDE}"
    )
    return f"{caption}\n\n{table}\n"


def _shown(record: dict[str, Any] | None) -> str:
    if record is None:
        return NONE
    spread = f"{record['std']:.1f}" if len(record["seeds"]) > 1 else NONE
    return f"{record['accuracy']:.1f} ± {spread}"
