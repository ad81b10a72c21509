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


def _table(rows: list[ResultRow]) -> str:
    recipes = [name for name in ALLOWED["recipe"] if name in {row.recipe for row in rows}]
    seeds = [f"{len({r.seed for r in rows if r.recipe == name})} ({name})" for name in recipes]
    summary = summarize(rows)
    lines = [["", *recipes], ["---", *["--:"] * len(recipes)]]
    for title, wanted in LINES.items():
        found = summary.query(wanted).to_dict("records")
        lines.append([title, *(_best(found, recipe) for recipe in recipes)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    caption = (
        f"{source_line(rows[0])}\n"
        f"Test accuracy in percent ± deviation over seeds: {', '.join(seeds)}. "
        f"Best: read off these accuracies.\n{GUIDE}"
    )
    return f"{caption}\n\n{table}\n"


def _best(found: list[dict[str, Any]], recipe: str) -> str:
    own = [line for line in found if line["recipe"] == recipe]
    if not own:
        return NONE
    best = max(own, key=lambda line: line["accuracy"])
    spread = f"{best['std']:.1f}" if len(best["seeds"]) > 1 else NONE
    return f"{best['accuracy']:.1f} ± {spread}"
