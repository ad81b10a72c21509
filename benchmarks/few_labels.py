"""What a few labels of the target add: `python -m benchmarks.few_labels`.

Not unsupervised, and in a table of its own: the full profile's digits backbones adapted to three
targets with 0, 1 and 5 labels a class, drawn from the training split by the backbone's seed.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from adapters import adapt
from adapters.few_labels import adapt_with_labels
from benchmarks import measure
from benchmarks.bench import load_digits
from benchmarks.digits import DIGITS, PROFILES, RECIPES
from benchmarks.grid import run_grid
from benchmarks.plan import NETWORKS, TRAINED, BackboneJob
from benchmarks.report import RESULTS
from benchmarks.results import append_line, read_lines
from benchmarks.run import Splits, accuracy, prepare_backbone
from benchmarks.tables import NONE, SIDES
from da_compose.files import replacing
from da_compose.images import ImageSet
from data_prep import load_digit_domain

TARGETS = ("usps", "optdigits", "mnist_m")
LABELS = (0, 1, 5)  # a class
GROUP = ["recipe", "network", "target"]
IDENTITY = [*GROUP, "seed", "labels_a_class"]
CAPTION = """Test-split accuracy in percent, mean ± standard deviation over seeds (how many seeds),
by how many images of every class come with a label. They are drawn from the training split by the
seed. 0: `adapt`, unsupervised; else `adapt_with_labels`, which is not. MW: mixture weights of the
compositional network; IA: input adapter of the unshared network. Information maximization, with
the guard.
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
    options: dict[str, Any] = {
        "trains": TRAINED[job.network], "steps": job.profile.adapt_steps, "seed": job.seed
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


def draw_labelled(
    labelled: ImageSet, count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` random images of every class, or all where there are fewer, and their labels."""
    order = np.random.default_rng(seed).permutation(len(labelled))
    classes = labelled.labels[order]
    chosen = np.concatenate([order[classes == c][:count] for c in np.unique(classes)])
    return labelled.images[chosen], labelled.labels[chosen]


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
@click.option("--runs", type=click.Path(path_type=Path), default=measure.ROOT / "runs" / "digits")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS / "few_labels")
@click.option("--data", type=click.Path(path_type=Path), envvar="DA_COMPOSE_DATA")
@click.option("--seed", "seeds", type=int, multiple=True, default=PROFILES["full"].seeds)
@click.option("--recipe", "recipes", type=click.Choice(list(RECIPES)), multiple=True,
              default=tuple(RECIPES))  # fmt: skip
@click.option("--network", "networks", type=click.Choice(NETWORKS), multiple=True, default=NETWORKS)
@click.option("--target", "targets", type=click.Choice(TARGETS), multiple=True, default=TARGETS)
@click.option("--processes", type=int, default=os.cpu_count() or 1)
def main(
    runs: Path, results: Path, data: Path | None, seeds: tuple[int, ...], recipes: tuple[str, ...],
    networks: tuple[str, ...], targets: tuple[str, ...], processes: int,
) -> None:  # fmt: skip
    """Adapt the digits backbones with 0, 1 and 5 labels a class; write rows and table."""
    try:
        chosen = load_digits(data)
        splits = {}
        for name in targets:
            domain = load_digit_domain(name, data_root=data)
            splits[name] = Splits(domain.train, domain.test)
        jobs = chosen.jobs(DIGITS, PROFILES["full"], recipes, networks)
        file = results / "results.jsonl"
        run_grid(
            run_backbone,
            [job for job in jobs if job.seed in seeds],
            (chosen.domains, splits, runs, file),
            processes=processes,
        )
        with replacing(results / "table.md") as temporary:
            temporary.write_text(markdown(read_lines(file)), encoding="utf-8")
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {results / 'table.md'}")


if __name__ == "__main__":
    main()
