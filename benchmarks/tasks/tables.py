"""Rows of the tasks benchmark to a captioned Markdown table a part."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean, stdev

import torch

from adapters.start import NEAREST
from adapters.transfer import RANDOM, TRANSFERRED
from benchmarks.harness.rows import FORMER_PARTS
from benchmarks.reports.tables import GUIDE
from benchmarks.tasks.plan import (
    COMPOSITIONAL,
    DEPTHS,
    LEARNED,
    PATCHES,
    REGULARIZED,
    SINGLE,
    TRAINED,
)
from benchmarks.tasks.train import TaskRow
from da_compose.model.signature import (
    SIGNATURES,
    format_signature,
    num_runs,
    sharpness,
    signature_of,
)
from da_compose.starts import MEAN

NONE = "-"
SETTINGS = (LEARNED, *REGULARIZED, *SIGNATURES)
PART_NAMES = {"heads": "logits", "batch_norm": "γ, β", "mixture_weights": "ξ"}
OF_ORDINARY = {
    COMPOSITIONAL: "a bank of 4 templates",
    PATCHES: "an ordinary network",
    SINGLE: "nine networks",
}


def pick(rows: Iterable[TaskRow], **fields: object) -> list[TaskRow]:
    """The rows whose fields have these values; of `trains`, its parts in any sequence type."""
    wanted = {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
    return [row for row in rows if all(getattr(row, n) == value for n, value in wanted.items())]


def accuracies(rows: Iterable[TaskRow], **fields: object) -> list[float]:
    """Accuracy in percent of the rows that `pick` finds."""
    return [row.accuracy for row in pick(rows, **fields)]


def trained_in_words(parts: Sequence[str]) -> str:
    """What is learned of a new task, as the tables call it."""
    return " + ".join(PART_NAMES[part] for part in parts)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Mean ± standard deviation over seeds; `-` for the deviation of one, and for none."""
    numbers = [*values]
    if not numbers:
        return NONE
    deviation = f"{stdev(numbers):.{digits}f}" if len(numbers) > 1 else NONE
    return f"{fmean(numbers):.{digits}f} ± {deviation}"


def caption(rows: Sequence[TaskRow], text: str) -> str:
    """What was measured, on which data, profile and seeds."""
    return f"{text}\nTest accuracy in percent ± deviation over seeds. {source_of(rows)}.\n{GUIDE}"


def source_of(rows: Sequence[TaskRow]) -> str:
    """Data, profile and seeds of these rows."""
    first, seeds = rows[0], sorted({row.seed for row in rows})
    return (
        f"Data: {first.data} ({first.data_fingerprint[:12]}); profile: {first.profile}; "
        f"seeds: {', '.join(map(str, seeds))}"
    )


def table(header: Sequence[str], lines: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table whose first `texts` columns are text, all others numbers."""
    marks = ["---"] * texts + ["--:"] * (len(header) - texts)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, marks, *lines))


def signatures_markdown(rows: Sequence[TaskRow]) -> str:
    """Learned mixtures beside hand-made signatures, before and after hardening."""
    lines = []
    for setting in SETTINGS:
        own = [row for row in rows if row.setting == setting]
        if not own:
            continue
        mixtures = [torch.tensor(row.found["mixture"]) for row in own]
        hard = [r.found["hardened_accuracy"] for r in own if "hardened_accuracy" in r.found]
        lines.append((
            setting,
            format_signature(signature_of(mixtures[0])),
            spread(row.accuracy for row in own),
            spread(hard),
            spread((float(sharpness(mixture).mean()) for mixture in mixtures), 2),
            spread(num_runs(signature_of(mixture)) for mixture in mixtures),
        ))  # fmt: skip
    header = ("Signature", "Templates of the layers (first seed)", "Accuracy", "Hardened",
              "Largest weight", "Runs")  # fmt: skip
    text = (
        f"One task, {rows[0].task}, on 4 templates in 12 layers; hardened: each layer is its main "
        "template, untrained."
    )
    return f"{caption(rows, text)}\n\n{table(header, lines, texts=2)}\n"


def depth_markdown(rows: Sequence[TaskRow]) -> str:
    """One bank in more and more layers."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    lines = []
    for layers in DEPTHS:
        own = [row for row in rows if row.setting == f"{layers} layers"]
        of_task = [[row for row in own if row.task == task] for task in tasks]
        lines.append((
            str(layers),
            *(spread(row.accuracy for row in found) for found in of_task),
            *(f"{found[0].total_parameters:,}" if found else NONE for found in of_task),
            *(spread(row.seconds for row in found if row.seconds) for found in of_task),
        ))  # fmt: skip
    header = ("Layers", *tasks, *(f"{task}: parameters" for task in tasks),
              *(f"{task}: seconds" for task in tasks))  # fmt: skip
    text = (
        "A bank of 4 templates in 4, 8 and 16 layers by the progressive signature: equal "
        "parameters, more computation."
    )
    return f"{caption(rows, text)}\n\n{table(header, lines)}\n"


def tasks_markdown(rows: Sequence[TaskRow]) -> str:
    """All tasks together, on one ordinary network, and each alone: a column a setting."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    settings = [name for name in OF_ORDINARY if pick(rows, setting=name)]
    columns = []
    for setting in settings:
        own = pick(rows, setting=setting)
        means = [fmean(accuracies(own, seed=seed)) for seed in sorted({row.seed for row in own})]
        nets = {row.task: row.total_parameters for row in own}
        total = sum(nets.values()) if setting == SINGLE else max(nets.values())
        of_task = (spread(accuracies(own, task=task)) for task in tasks)
        columns.append((*of_task, spread(means), f"{total:,}"))
    names = (*tasks, "mean", "parameters in all")
    meant = "; ".join(f"{setting}: {OF_ORDINARY[setting]}" for setting in settings)
    text = f"As many images of a task in each setting. {meant}."
    lines = [(name, *cells) for name, *cells in zip(names, *columns, strict=True)]
    return f"{caption(rows, text)}\n\n{table(('Task', *settings), lines)}\n"


def transfer_markdown(rows: Sequence[TaskRow]) -> str:
    """New tasks, a table each: which start, what is learned, how many labels."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    starts = [start for start in dict.fromkeys(row.start for row in rows) if start != NEAREST]
    parts = []
    for task in tasks:
        cells = []
        for trains, labels in product(TRAINED, label_counts(rows)):
            own = pick(rows, task=task, trains=trains, labels=labels)
            by_start = (spread(accuracies(own, start=start)) for start in (*starts, NEAREST))
            cells.append((trained_in_words(trains), labels_in_words(labels), *by_start))
        header = ("Learned", "Labels a class", *starts, "chosen")
        parts += [f"New task {task}:", table(header, cells, texts=2)]
    text = (
        f"New tasks on a frozen bank of {', '.join(rows[0].config['tasks'])}, by the task whose ξ, "
        f"γ and β they start from ({MEAN}, {RANDOM}, chosen)."
    )
    chosen, numbers = starts_chosen(rows, tasks, starts), learned_numbers(rows, tasks[0])
    return "\n\n".join((caption(rows, text), *parts, chosen, numbers)) + "\n"


def starts_chosen(rows: Sequence[TaskRow], tasks: Sequence[str], starts: Sequence[str]) -> str:
    """How often each trained start is the chosen one."""
    trained, lines = [start for start in starts if start != RANDOM], []
    for task in tasks:
        own = pick(rows, task=task, start=NEAREST, trains=TRANSFERRED)
        found = [row.found["start"] for row in own]
        lines.append((task, *(f"{found.count(start)} of {len(found)}" for start in trained)))
    said = "How often the training labels choose a start, over seeds and numbers of labels:"
    return f"{said}\n\n{table(('New task', *trained), lines)}"


def learned_numbers(rows: Sequence[TaskRow], task: str) -> str:
    """How many numbers of each part are learned of a task."""
    learned: dict[str, int] = {}
    for row in pick(rows, task=task):
        counts: Mapping[str, int] = row.found["learned_parameters"]
        learned |= {FORMER_PARTS.get(part, part): count for part, count in counts.items()}
    lines = [(trained_in_words([part]), f"{count:,}") for part, count in learned.items()]
    return f"Learned numbers of {task}, in two heads:\n\n{table(('Part', 'Numbers'), lines)}"


def label_counts(rows: Iterable[TaskRow]) -> list[int | None]:
    """Numbers of labels a class, rising; None, all of them, comes last."""
    return sorted({row.labels for row in rows}, key=lambda n: float("inf") if n is None else n)


def labels_in_words(count: int | None) -> str:
    """A number of labels a class, as tables and plots call it."""
    return "all" if count is None else str(count)


TABLES: Mapping[str, Callable[[Sequence[TaskRow]], str]] = {
    "signatures": signatures_markdown,
    "depth": depth_markdown,
    "tasks": tasks_markdown,
    "transfer": transfer_markdown,
}
