"""What the studies on a benchmark's backbones share: options, targets, rows to one table."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.harness.benchmark import BenchmarkData, load_digits
from benchmarks.harness.cells import Splits
from benchmarks.harness.digit_benchmark import DIGITS, PROFILES
from benchmarks.harness.folders import ROWS, results_of, runs_of
from benchmarks.harness.grid import run_grid
from benchmarks.harness.plan import NETWORKS, BackboneJob
from benchmarks.harness.rows import read_lines
from benchmarks.options import PATH, cache_option, users_mistakes
from da_compose.storage.files import replacing
from da_compose.training.recipes import DIGIT_RECIPES, usual_recipes
from data_prep import load_digit_domain

DIGIT_RUNS = runs_of("digits")
Lines = Iterable[Mapping[str, Any]]


def study_options(
    name: str, seeds: Iterable[int] = PROFILES["full"].seeds, runs: Path | None = DIGIT_RUNS
) -> Callable[..., Any]:
    """Where a study's backbones and results lie, and on which data and seeds it runs."""
    options = (
        click.option("--runs", type=PATH, default=runs, help="[default: the benchmark's]"),
        click.option("--results", type=PATH, default=results_of(runs_of(name))),
        click.option("--data", type=PATH, envvar="DA_COMPOSE_DATA"),
        cache_option,
        click.option("--seed", "seeds", type=int, multiple=True, default=tuple(seeds)),
        click.option("--processes", type=int, default=os.cpu_count() or 1),
    )
    return _all(options)


def backbone_options(targets: tuple[str, ...]) -> Callable[..., Any]:
    """On which backbones and targets, by default all."""
    options = (
        click.option("--recipe", "recipes", type=click.Choice(tuple(DIGIT_RECIPES)), multiple=True,
                     default=usual_recipes(DIGIT_RECIPES)),
        click.option("--network", "networks", type=click.Choice(NETWORKS), multiple=True,
                     default=NETWORKS),
        click.option("--target", "targets", multiple=True, default=targets),
    )  # fmt: skip
    return _all(options)


def _all(options: Iterable[Callable[..., Any]]) -> Callable[..., Any]:
    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return add


def target_splits(
    chosen: BenchmarkData, names: Iterable[str], data: Path | None
) -> dict[str, Splits]:
    """Digit domains by name, in their order; ValueError where the backbones were trained on one."""
    names, found = list(names), {}
    if sources := sorted({*names} & {*chosen.sources}):
        raise ValueError(f"{', '.join(sources)}: a source of the backbones; leave it out")
    for name in dict.fromkeys(names):
        domain = load_digit_domain(name, data_root=data)
        found[name] = Splits(domain.train, domain.test)
    return found


def run_on_targets(
    run_backbone: Callable[..., None], render: Callable[[Lines], str], *, runs: Path,
    results: Path, data: Path | None, seeds: tuple[int, ...], recipes: tuple[str, ...],
    networks: tuple[str, ...], targets: tuple[str, ...], processes: int,
) -> None:  # fmt: skip
    """A study with `study_options` and `backbone_options`, on the full profile's backbones."""
    with users_mistakes():
        chosen = load_digits(data)
        jobs = chosen.jobs(DIGITS, replace(PROFILES["full"], seeds=seeds), recipes, networks)
        shared = (chosen.domains, target_splits(chosen, targets, data), runs)
        run_study(run_backbone, jobs, shared, results, processes, render)


def run_study(
    run_backbone: Callable[..., None],
    jobs: Iterable[BackboneJob],
    shared: tuple[Any, ...],
    results: Path,
    processes: int,
    render: Callable[[Lines], str],
) -> None:
    """`run_backbone(job, *shared, file)` appends lines; `table.md` is then made of all of them."""
    file = results / ROWS
    run_grid(run_backbone, jobs, (*shared, file), processes=processes)
    with replacing(results / "table.md") as temporary:
        temporary.write_text(render(read_lines(file)), encoding="utf-8")
    click.echo(f"wrote {results / 'table.md'}")
