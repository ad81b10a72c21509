"""Result rows to tables: a data frame, Markdown, CSV and the terminal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.harness.rows import ALLOWED, ResultRow, latest

STRATEGY_NAMES = {
    "source_only": "Source only",
    "batch_norm": "AdaBN",
    "chosen_start": "Chosen start",
    "adversarial": "Adversarial (ADDA)",
    "moment_matching": "Moment matching (M3SDA)",
    "classifier_discrepancy": "M3SDA + classifier discrepancy",
    "information_maximization": "Information maximization",
    "consensus": "Consensus of the starts",
    "auto": "Auto",
    "tent": "TENT (entropy)",
    "shot": "SHOT (information, pseudo-labels)",
    "t3a": "T3A (prototypes)",
}
ORACLE = "oracle (target labels)"
TRAINED = {
    "nothing": "",
    "mixture_weights": "MW",
    "input_adapter": "IA",
    "batch_norm": "γ, β",
    "all": "all",
}
SIDES = {"compositional": "MW", "unshared": "IA"}  # what each network adapts in the comparison
Cell = TypeVar("Cell")
GROUP = ("benchmark", "sources", "target", "data", "data_fingerprint", "profile")
KEY = ["recipe", "oracle", "strategy", "network", "trains"]
ACCURACIES = ["MW accuracy", "MW gain", "IA accuracy", "IA gain"]
COSTS = [f"{name} MW / IA" for name in ("Last step", "Learned", "Bytes", "Seconds", "Peak MB")]
HEADER = ["Strategy", *ACCURACIES, *COSTS]
ACCURATE, COSTLY = range(7), (0, 6, 7, 8, 9)  # columns of HEADER: how accurate, what it costs
BOUNDS = "*Bounds, learned with target labels:*"
NONE = "-"
GUIDE = "How to read: docs/reading-tables.md"  # the end of captions
READING = (
    f"Test accuracy in percent ± deviation over seeds; gain: over AdaBN (over source only). {GUIDE}"
)


def groups(rows: Iterable[ResultRow]) -> list[list[ResultRow]]:
    """Latest rows, parted by benchmark, data, sources, target and profile: one table each."""
    parted: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in latest(rows):
        key = tuple(str(getattr(row, name)) for name in GROUP)
        parted.setdefault(key, []).append(row)
    return [parted[key] for key in sorted(parted)]


def display_name(strategy: str, oracle: bool = False) -> str:
    """The name shown for a strategy; an oracle's always says that it saw target labels."""
    name = STRATEGY_NAMES.get(strategy, strategy.replace("_", " ").capitalize())
    if not oracle:
        return name
    return ORACLE if strategy in ("oracle", "supervised") else f"{ORACLE}: {name}"


def summarize(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """One line per recipe, oracle, strategy, network and trained set: means over seeds.

    Columns: those five, `seeds` (list), `accuracy` (mean, percent), `std` (ddof=1; 0 for one seed),
    `last_accuracy` (mean, percent), `over_source_only` and `over_batch_norm` (points),
    `learned_parameters`, `adapter_bytes`,
    `seconds`, `peak_memory_mb`. In the order of the tables. Rows must be of one group.
    """
    parted = groups(rows)
    if len(parted) != 1:
        raise ValueError(
            f"expected rows of one benchmark, data, sources, target and profile, got {len(parted)} "
            "kinds; run the benchmark if there are none, else summarize each of groups(rows)"
        )
    frame = pd.DataFrame([vars(row) for row in parted[0]])
    frame["over_source_only"] = frame.accuracy - frame.source_only
    frame["over_batch_norm"] = frame.accuracy - frame.batch_norm
    frame = frame.sort_values("seed").groupby(KEY, as_index=False)
    summary = frame.agg(
        seeds=("seed", list),
        accuracy=("accuracy", "mean"),
        std=("accuracy", "std"),
        last_accuracy=("last_accuracy", "mean"),
        over_source_only=("over_source_only", "mean"),
        over_batch_norm=("over_batch_norm", "mean"),
        learned_parameters=("learned_parameters", "mean"),
        adapter_bytes=("adapter_bytes", "mean"),
        seconds=("seconds", "mean"),
        peak_memory_mb=("peak_memory_mb", "mean"),
    ).fillna({"std": 0.0})
    return summary.sort_values(KEY, key=rank, ignore_index=True)


def rank(column: pd.Series) -> pd.Series:
    """Place of a value in the tables: known values as they are listed above, others after them."""
    known: Sequence[str] = {**ALLOWED, "strategy": tuple(STRATEGY_NAMES)}.get(str(column.name), ())
    places = {value: f"{place:02d}" for place, value in enumerate(known)}
    return column.map(lambda value: places.get(value, f"~{value}"))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One recipe's table as text: title, caption, lines of cells, (line, column) of the best.

    caption: at most three lines; what all tables have in common is in `GUIDE`. Lines from `bounds`
    on, the last ones, are of oracles.
    """

    title: str
    caption: list[str]
    lines: list[list[str]]
    best: set[tuple[int, int]]
    bounds: int

    def marked(self, plain: Callable[[str], Cell], bold: Callable[[str], Cell]) -> list[list[Cell]]:
        """The lines with every cell passed through `plain`, or `bold` if it is the best."""
        return [
            [(bold if (y, x) in self.best else plain)(text) for x, text in enumerate(line)]
            for y, line in enumerate(self.lines)
        ]


def grids(rows: Iterable[ResultRow]) -> list[Grid]:
    """One table of each group and recipe."""
    found = []
    for group in groups(rows):
        for recipe in ALLOWED["recipe"]:
            if chosen := [row for row in group if row.recipe == recipe]:
                found.append(_grid(chosen))
    if not found:
        raise ValueError("expected result rows, got none; run the benchmark first")
    return found


def _grid(rows: list[ResultRow]) -> Grid:
    """MW and IA side by side, one line per strategy; other trained sets get lines of their own."""
    seeds = sorted({row.seed for row in rows})
    lines: dict[str, dict[str, dict[str, Any]]] = {}  # line name -> network -> summary
    for record in summarize(rows).to_dict("records"):
        name = display_name(record["strategy"], record["oracle"])
        shown = TRAINED[record["trains"]]
        if shown not in ("", SIDES[record["network"]]):
            name += f", {shown}"
        if record["network"] in lines.get(name, {}):  # the same name for two trained sets
            name += f" [{record['strategy']}, {record['trains']}]"
        lines.setdefault(name, {})[record["network"]] = record
    cells = []
    accuracies = {}  # (line, column) -> accuracy as shown, without target labels
    for number, (name, line) in enumerate(lines.items()):
        sides = [line.get(network) for network in SIDES]
        cells.append([name, *_accuracies(sides, len(seeds)), *_costs(sides)])
        for place, side in enumerate(sides):
            if side and not side["oracle"]:
                accuracies[number, 1 + 2 * place] = round(side["accuracy"], 1)
    best = {place for place, value in accuracies.items() if value == max(accuracies.values())}
    title = f"{rows[0].recipe} → {rows[0].target}"
    caption = [source_line(rows[0]), settings_line(rows), READING]
    bounds = sum(not any(s["oracle"] for s in line.values()) for line in lines.values())
    return Grid(title=title, caption=caption, lines=cells, best=best, bounds=bounds)


def _accuracies(sides: list[dict[str, Any] | None], num_seeds: int) -> list[str]:
    """Accuracy and gain of each side; a side with fewer seeds than the table says so."""
    cells = []
    for side in sides:
        if side is None:
            cells += [NONE, NONE]
            continue
        seeds = len(side["seeds"])
        spread = f"{side['std']:.1f}" if seeds > 1 else NONE
        fewer = f" (n={seeds})" if seeds < num_seeds else ""
        cells.append(f"{side['accuracy']:.1f} ± {spread}{fewer}")
        cells.append(f"{side['over_batch_norm']:+.1f} ({side['over_source_only']:+.1f})")
    return cells


def _costs(sides: list[dict[str, Any] | None]) -> list[str]:
    formats = {
        "last_accuracy": ".1f",
        "learned_parameters": ",.0f",
        "adapter_bytes": ",.0f",
        "seconds": ",.1f",
        "peak_memory_mb": ",.0f",
    }
    return [
        " / ".join(format(side[name], style) if side else NONE for side in sides)
        for name, style in formats.items()
    ]


def source_line(row: ResultRow) -> str:
    """Where a row's numbers come from: benchmark, sources -> target, data and profile."""
    sources = ", ".join(row.sources)
    return f"{row.benchmark}: {sources} → {row.target}; {data_line(row)}; profile: {row.profile}"


def data_line(row: ResultRow) -> str:
    """Which data a row is of, and their pixels a side where it says so."""
    job = row.config.get("job", {})
    size = (job.get("network") or job.get("pretrained") or {}).get("image_size")
    pixels = f", {size} pixels" if size else ""
    return f"data: {row.data} ({row.data_fingerprint[:12]}){pixels}"


def steps_line(rows: Iterable[ResultRow]) -> str:
    """How many steps were taken on what is trained, where rows say so; ends in a semicolon."""
    rows, taken = list(rows), {}
    for trains, name in TRAINED.items():
        for row in rows:
            steps = row.config.get("job", {}).get("adapt_steps")
            if steps and name and row.trains == trains:
                taken.setdefault(steps, {})[name] = None
    parts = [f"{steps} ({'; '.join(names)})" for steps, names in sorted(taken.items())]
    return f"adaptation steps: {', '.join(parts)}; " if parts else ""


def settings_line(rows: list[ResultRow]) -> str:
    """Recipe, steps and seeds of the rows of one table."""
    seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in rows}))
    return f"recipe: {rows[0].recipe}; {steps_line(rows)}seeds: {seeds}"


def markdown(rows: Iterable[ResultRow]) -> str:
    """Of each group and recipe a captioned table of accuracies, and one of what they cost."""

    def escape(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    blocks = []
    for grid in grids(rows):
        lines = grid.marked(escape, lambda text: f"**{escape(text)}**")
        parts = [[line[place] for place in ACCURATE] for line in (HEADER, *lines)]
        costs = [[line[place] for place in COSTLY] for line in (HEADER, *lines)]
        caption = escape(".\n".join(grid.caption))
        blocks.append(
            f"{caption}\n\n{bounded(parts, grid.bounds)}\n\n"
            f"What they cost:\n\n{bounded(costs, grid.bounds)}\n"
        )
    return "\n".join(blocks)


def bounded(lines: Sequence[Sequence[str]], bounds: int) -> str:
    """A Markdown table of a header and lines; those from `bounds` on stand apart, as bounds."""
    header, *rest = lines
    width = len(header)
    apart = [[BOUNDS, *[""] * (width - 1)]] if bounds < len(rest) else []
    shown = [header, ["---", *["--:"] * (width - 1)], *rest[:bounds], *apart, *rest[bounds:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


def csv(rows: Iterable[ResultRow]) -> str:
    """Captions as lines that start with #, then the summaries of all groups, unrounded."""
    rows = list(rows)
    captions = [f"# {line}\n" for grid in grids(rows) for line in grid.caption]
    frames = []
    for group in groups(rows):
        frame = summarize(group)
        frame["std"] = frame["std"].where(frame.seeds.map(len) > 1)  # empty for one seed
        frame["seeds"] = [" ".join(map(str, seeds)) for seeds in frame.seeds]
        for name in reversed(GROUP):
            value = getattr(group[0], name)
            frame.insert(0, name, " ".join(value) if isinstance(value, list) else value)
        frames.append(frame)
    return "".join(captions) + pd.concat(frames).to_csv(index=False, lineterminator="\n")


def terminal(rows: Iterable[ResultRow]) -> Group:
    """All tables as the sections of one, without the costs so that it fits 80 columns."""
    rows = list(rows)
    found = grids(rows)
    shown = 1 + len(ACCURACIES)
    table = Table(box=SIMPLE)
    for place, name in enumerate(HEADER[:shown]):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0)
    for grid in found:
        table.add_section()
        table.add_row(Text(grid.title, style="italic"))
        for place, line in enumerate(grid.marked(Text, lambda text: Text(text, style="bold"))):
            if place == grid.bounds:
                table.add_section()
                table.add_row(Text("bounds", style="italic"))
            table.add_row(*line[:shown], style="dim" if place >= grid.bounds else None)
    return Group(table, *(Text(_terminal_caption(group)) for group in groups(rows)))


def _terminal_caption(rows: list[ResultRow]) -> str:
    """What the recipes of one group have in common."""
    counts = sorted({len({r.seed for r in rows if r.recipe == row.recipe}) for row in rows})
    seeds = " to ".join(dict.fromkeys(str(counts[place]) for place in (0, -1)))
    return f"{source_line(rows[0])}; seeds: {seeds}. {READING}"
