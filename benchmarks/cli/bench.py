"""The commands `da-compose bench ...`."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from adapters.config import CHOICES
from benchmarks.cli.files import check_folder
from benchmarks.cli.findings import RowsSeen, closing, own_groups
from benchmarks.cli.text import say
from benchmarks.harness.benchmark import BenchmarkData, load_digits, load_real_digits, run_benchmark
from benchmarks.harness.cells import BACKBONE
from benchmarks.harness.digit_benchmark import DIGITS, PROFILES
from benchmarks.harness.folders import results_of, runs_of
from benchmarks.harness.picture_benchmarks import ALL, PICTURES, at_size, load_pictures
from benchmarks.harness.plan import NETWORKS, USUAL, Benchmark
from benchmarks.options import (
    PATH,
    SEED,
    STEPS,
    adding,
    data_option,
    device_of,
    device_option,
    process_options,
    quiet_option,
)
from benchmarks.reports.report import draw_backbone, write_report
from benchmarks.reports.tables import terminal
from benchmarks.speed.benchmark import SUITES, bench_speed
from benchmarks.speed.setting import Setting
from benchmarks.tasks.benchmark import bench_tasks
from benchmarks.tasks.plan import JOBS, load_task_data
from benchmarks.tasks.plan import PROFILES as TASK_PROFILES
from da_compose.progress import phase
from da_compose.storage.locks import alone
from da_compose.training.recipes import usual_recipes
from data_prep import DomainUnavailable


@click.group()
def bench() -> None:
    """Run a benchmark; finished cells are not run again.

    Example: da-compose bench digits --profile quick
    """


def several(
    *names: str, choices: Iterable[str], usual: Iterable[str] | None = None
) -> Callable[..., Any]:
    """An option that may be given several times; by default the usual choices, else all."""
    values = list(choices)
    default = values if usual is None else list(usual)
    return click.option(*names, multiple=True, type=click.Choice(values), default=default)


def folder_options(name: str, runs: str, results: str) -> tuple[Callable[..., Any], ...]:
    """The options of where a benchmark writes, with what is there."""
    return (
        click.option("--runs", type=PATH, default=runs_of(name), help=runs),
        click.option("--results", type=PATH, help=f"{results} [default: results/ in --runs]"),
    )


def grid_options(benchmark: Benchmark) -> Callable[..., Any]:
    """The options of every benchmark of cells."""
    recipes = benchmark.recipes
    options = (
        click.option("--profile", type=click.Choice(list(benchmark.profiles)), default="quick"),
        several("--recipe", "recipes", choices=recipes, usual=usual_recipes(recipes)),
        several("--network", "networks", choices=NETWORKS),
        several("--strategy", "strategies", choices=CHOICES, usual=USUAL),
        click.option(
            "--oracles/--no-oracles", default=True, help="Also train on target labels, as bounds."
        ),
        click.option("--seed", "seeds", multiple=True, type=SEED, help="[default: the profile's]"),
        click.option("--pretrain-steps", type=STEPS, help="[default: the profile's]"),
        click.option(
            "--adapt-steps",
            type=STEPS,
            help="Of mixture weights; input adapters take more, as usual. [default: the profile's]",
        ),
        *process_options,
        *folder_options(benchmark.name, "Backbones and adapters.", "Rows, tables and plots."),
        data_option,
        device_option,
        quiet_option,
    )

    return adding(options)


def run(
    benchmark: Benchmark,
    load: Callable[[], list[BenchmarkData]],
    *,
    profile: str,
    seeds: tuple[int, ...],
    pretrain_steps: int | None,
    adapt_steps: int | None,
    device: str,
    runs: Path,
    results: Path | None,
    **options: Any,
) -> None:
    """Run the benchmark on the rotations that `load` prepares, and print its tables."""
    chosen = benchmark.profiles[profile]
    chosen = replace(
        chosen,
        seeds=seeds or chosen.seeds,
        pretrain_steps=pretrain_steps or chosen.pretrain_steps,
        adapt_steps=adapt_steps or chosen.adapt_steps,
    )
    device = device_of(device)
    results = results_of(runs, results)
    for folder in (runs, results):
        check_folder(folder)
    with alone(results):
        rotations = load()
        own = {(chosen.name, data.fingerprint) for data in rotations}
        jobs, domains = run_benchmark(
            benchmark, rotations, chosen, runs=runs, results=results, device=device, say=click.echo,
            seen=RowsSeen(results, own), **options,
        )  # fmt: skip
        drawn = [job for job in jobs if job.seed == chosen.seeds[0]]
        with phase("drawing tables and pictures", len(drawn) + 1) as drawing:
            rows = write_report(results)
            drawing.advance()
            for job in drawn:
                draw_backbone(job, domains, runs, results)
                drawing.advance()
    found = own_groups(rows, own)
    for group in found:
        Console().print(terminal(group))
    ours = [job for job in jobs if job.network == "compositional"]
    backbone = ours[-1].folder(runs) / BACKBONE if ours else None
    for line in closing(benchmark, [row for group in found for row in group], results, backbone):
        say(line)


@bench.command("digits")
@click.option(
    "--target",
    help="Target domain; all: five real ones in turn. [default: usps, else optdigits]",
)
@grid_options(DIGITS)
def bench_digits_command(target: str | None, data_root: Path | None, **options: Any) -> None:
    """Digits: mixture weights against the input adapter, every strategy, oracles.

    Example: da-compose bench digits --profile quick
    """
    if target == ALL:
        use_folder("digits-all", options)
        run(DIGITS, lambda: load_real_digits(data_root), **options)
    else:
        run(DIGITS, lambda: [load_digits(data_root, target)], **options)


def use_folder(name: str, options: dict[str, Any]) -> None:
    """Change the default folder of runs, and so that of results, to the one of this name."""
    source = click.get_current_context().get_parameter_source("runs")
    if source is ParameterSource.DEFAULT:
        options["runs"] = runs_of(name)


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of benchmarks of pictures."""
    for option in (
        click.option("--target", help="Target domain, or all of them in turn: all."),
        click.option("--classes", type=PATH, help="File of class names, a line each: only those."),
        click.option("--per-class", type=click.IntRange(min=1), help="At most so many pictures."),
        click.option(
            "--image-size",
            type=click.IntRange(min=8),
            help="Pixels a side; from scratch about 8 x 8 patches whatever it is. "
            "[default: the recipe's]",
        ),
    ):
        command = option(command)
    return command


def run_pictures(
    name: str,
    *,
    target: str | None,
    classes: Path | None,
    per_class: int | None,
    image_size: int | None,
    data_root: Path | None,
    recipes: tuple[str, ...],
    **options: Any,
) -> None:
    """Run a benchmark of pictures."""
    known = PICTURES[name].recipes
    sizes = {recipe: image_size or known[recipe].image_size for recipe in recipes}
    image_size = sizes[recipes[0]]
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{recipe} {size}" for recipe, size in sizes.items())
        raise ValueError(
            f"recipes take pictures of different sizes ({said} pixels); run one at a time, or name "
            "an --image-size"
        )
    load = partial(load_pictures, name, data_root, target, classes, per_class, image_size)
    run(at_size(PICTURES[name], image_size), load, recipes=recipes, **options)


@bench.command("pacs")
@picture_options
@grid_options(PICTURES["pacs"])
def bench_pacs_command(**options: Any) -> None:
    """PACS: photographs, paintings, cartoons, sketches; one of them the target, by default each.

    Example: da-compose bench pacs --target sketch
    """
    run_pictures("pacs", **options)


@bench.command("satellite")
@picture_options
@grid_options(PICTURES["satellite"])
def bench_satellite_command(**options: Any) -> None:
    """Satellite: aerial scenes of several collections; one of them the target, by default each.

    Example: da-compose bench satellite --target ucm --recipe lite0
    """
    run_pictures("satellite", **options)


@bench.command("emoji")
@picture_options
@grid_options(PICTURES["emoji"])
def bench_emoji_command(**options: Any) -> None:
    """Emoji in three drawing styles that pip packages carry: needs neither files nor network.

    Example: da-compose bench emoji
    """
    run_pictures("emoji", **options)


@bench.command("domainnet")
@picture_options
@grid_options(PICTURES["domainnet"])
def bench_domainnet_command(**options: Any) -> None:
    """DomainNet: five domains to sketch. Where its files are missing: the emoji benchmark.

    Example: da-compose bench domainnet --data ~/data --per-class 50
    """
    try:
        run_pictures("domainnet", **options)
    except DomainUnavailable as error:
        click.echo(f"{error}\nDomainNet is not at hand: this is the emoji benchmark instead")
        use_folder("emoji", options)
        options.update(target=None, classes=None)
        run_pictures("emoji", **options)


@bench.command("speed")
@several("--suite", "suites", choices=SUITES)
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="quick",
    help="Whose backbones of the digits benchmark; pretrained now where they are missing.",
)
@click.option("--runs", type=PATH, default=runs_of("digits"), help="Backbones.")
@click.option("--results", type=PATH, default=results_of(runs_of("speed")), help="Rows and table.")
@data_option
@quiet_option
def bench_speed_command(
    suites: tuple[str, ...], profile: str, runs: Path, results: Path, data_root: Path | None
) -> None:
    """Speed as ratios measured in one run, one thread: steps, training, prediction, scale.

    Example: da-compose bench speed --suite step
    """
    for folder in (runs, results):
        check_folder(folder)
    chosen = replace(PROFILES[profile], seeds=(0,))
    with alone(results):
        setting = Setting(load_digits(data_root), chosen, runs)
        bench_speed(setting, suites, results, click.echo)


@bench.command("tasks")
@several("--part", "parts", choices=JOBS)
@click.option("--profile", type=click.Choice(list(TASK_PROFILES)), default="quick")
@click.option("--seed", "seeds", multiple=True, type=SEED, help="[default: the profile's]")
@adding(process_options)
@adding(folder_options("tasks", "Trained networks.", "Rows, tables and figure."))
@data_option
@quiet_option
def bench_tasks_command(
    profile: str,
    seeds: tuple[int, ...],
    runs: Path,
    results: Path | None,
    data_root: Path | None,
    **options: Any,
) -> None:
    """Signatures, depth at constant size, nine tasks on one bank, transfer to new tasks.

    Example: da-compose bench tasks --part signatures
    """
    results = results_of(runs, results)
    for folder in (runs, results):
        check_folder(folder)
    chosen = TASK_PROFILES[profile]
    chosen = replace(chosen, seeds=seeds or chosen.seeds)
    with alone(results):
        data = load_task_data(data_root)
        bench_tasks(chosen, data, runs=runs, results=results, say=click.echo, **options)
    click.echo(f"tables and figure are in {results}")
