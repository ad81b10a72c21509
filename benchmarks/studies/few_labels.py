"""What a few labels of the target add: `python -m benchmarks.studies.few_labels`.

Not unsupervised, and in a table of its own: the full profile's digits backbones adapted to three
targets with 0, 1 and 5 labels a class, drawn from the training split by the backbone's seed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch

from adapters import adapt
from adapters.labelled import adapt_with_labels
from benchmarks.harness import measure
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.few_labels import draw_labelled
from benchmarks.harness.plan import TRAINED, BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import GUIDE, NONE, SIDES
from benchmarks.studies.study import backbone_options, run_on_targets, study_options

TARGETS = ("usps", "optdigits", "mnist_m")
LABELS = (0, 1, 5)  # a class
GROUP = ["recipe", "network", "target"]
IDENTITY = [*GROUP, "seed", "labels_a_class"]
CAPTION = f"""Test accuracy in percent ± deviation over seeds (how many), by how many images of
every class come with a label. 0: `adapt`, unsupervised; else `adapt_with_labels`, which is not.
{GUIDE}
"""


def run_backbone(
    job: BackboneJob, sources: Mapping[str, Splits], targets: Mapping[str, Splits],
    runs: Path, results: Path,
) -> None:  # fmt: skip
    """Every unfinished target and number of labels on one backbone, in this process."""
    torch.set_num_threads(1)
    finished = [identity(line) for line in read_lines(results)]
    backbone = prepare_backbone(job, sources, job.folder(runs), "cpu")
    naming = {"recipe": job.recipe, "network": job.network, "seed": job.seed}
    trains = TRAINED[job.network]
    options: dict[str, Any] = {
        "trains": trains, "steps": job.adapt_steps(trains), "seed": job.seed
    }  # fmt: skip
    for target, splits in targets.items():
        for count in LABELS:
            line: dict[str, Any] = {**naming, "target": target, "labels_a_class": count}
            if identity(line) in finished:
                continue
            few = draw_labelled(splits.train, count, job.seed)
            found = (
                adapt_with_labels(backbone, splits.train.images, few, **options)
                if count
                else adapt(backbone, splits.train.images, **options)
            )
            line["accuracy"] = accuracy(backbone, found.domain, splits.test)
            line["last_accuracy"] = accuracy(backbone, found.last or found.domain, splits.test)
            line |= {"adaptation": found.notes, "commit": measure.commit()}
            append_line(results, line)
            print(line, flush=True)


def identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a line is the result of."""
    return tuple(line[name] for name in IDENTITY)


def markdown(lines: Iterable[Mapping[str, Any]]) -> str:
    """A row for every recipe, network and target; a column for every number of labels."""
    frame = pd.DataFrame(list(lines)).drop_duplicates(IDENTITY, keep="last")
    table = [["recipe", "trained", "target", *(f"{count} a class" for count in LABELS)]]
    table.append(["---"] * 3 + ["--:"] * len(LABELS))
    for _, rows in frame.groupby(GROUP):
        row = rows.iloc[0]
        found = [rows.accuracy[rows.labels_a_class == count] for count in LABELS]
        table.append([row.recipe, SIDES[row.network], row.target, *map(_spread, found)])
    return CAPTION + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def _spread(accuracies: pd.Series) -> str:
    if accuracies.empty:
        return NONE
    deviation = f"{accuracies.std():.1f}" if len(accuracies) > 1 else NONE
    return f"{accuracies.mean():.1f} ± {deviation} ({len(accuracies)})"


@click.command()
@study_options("few_labels")
@backbone_options(TARGETS)
def main(**options: Any) -> None:
    """Adapt the digits backbones with 0, 1 and 5 labels a class; write rows and table."""
    run_on_targets(run_backbone, markdown, **options)


if __name__ == "__main__":
    main()
