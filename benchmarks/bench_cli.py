"""The commands `da-compose bench ...` and `da-compose report`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import commands
from benchmarks.bench import bench_digits, load_benchmark_data
from benchmarks.digits import NETWORKS, PROFILES, RECIPES
from benchmarks.digits import STRATEGIES as BENCH_STRATEGIES
from benchmarks.grid import BACKENDS
from benchmarks.measure import ROOT
from benchmarks.options import PATH, SEED, STEPS, data_option, device_of, device_option
from benchmarks.report import RESULTS, insert_table, update_readme, write_report
from benchmarks.speed.bench import SUITES, bench_speed, read_speed_rows
from benchmarks.speed.bench import markdown as speed_table
from benchmarks.speed.setting import Setting
from benchmarks.tables import groups, terminal


@click.group()
def bench() -> None:
    """Run a benchmark; finished cells are not run again.

    Example: da-compose bench digits --profile quick
    """


@bench.command("digits")
@click.option("--profile", type=click.Choice(list(PROFILES)), default="quick")
@click.option(
    "--recipe", "recipes", multiple=True, type=click.Choice(list(RECIPES)), default=list(RECIPES)
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    type=click.Choice(list(NETWORKS)),
    default=list(NETWORKS),
)
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    type=click.Choice(BENCH_STRATEGIES),
    default=BENCH_STRATEGIES,
)
@click.option(
    "--oracles/--no-oracles", default=True, help="Also train on target labels, as bounds."
)
@click.option("--seed", "seeds", multiple=True, type=SEED, help="[default: the profile's]")
@click.option("--target", help="Target domain. [default: usps, else optdigits]")
@click.option("--pretrain-steps", type=STEPS, help="[default: the profile's]")
@click.option("--adapt-steps", type=STEPS, help="[default: the profile's]")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    help="One-thread processes at a time.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="loky",
    help="What runs the processes: loky, on this machine; dask or ray, also on a cluster.",
)
@click.option(
    "--scheduler", help="Address of Dask's scheduler. [default: a cluster of --processes here]"
)
@click.option("--runs", type=PATH, default=ROOT / "runs" / "digits", help="Backbones and adapters.")
@click.option("--results", type=PATH, default=RESULTS / "digits", help="Rows, tables and plots.")
@data_option
@device_option
def bench_digits_command(
    profile: str, seeds: tuple[int, ...], target: str | None, data_root: Path | None,
    pretrain_steps: int | None, adapt_steps: int | None, device: str, runs: Path, results: Path,
    **options: Any,
) -> None:  # fmt: skip
    """Digits: mixture weights against the input adapter, every strategy, oracles.

    Example: da-compose bench digits --profile quick
    """
    chosen = PROFILES[profile]
    chosen = replace(
        chosen,
        seeds=seeds or chosen.seeds,
        pretrain_steps=pretrain_steps or chosen.pretrain_steps,
        adapt_steps=adapt_steps or chosen.adapt_steps,
    )
    device = device_of(device)
    for folder in (runs, results):
        commands.check_folder(folder)
    data = load_benchmark_data(data_root, target)
    rows = bench_digits(
        data, chosen, runs=runs, results=results, device=device, say=click.echo, **options
    )
    own = (chosen.name, data.fingerprint)
    for group in groups(row for row in rows if (row.profile, row.data_fingerprint) == own):
        Console().print(terminal(group))
    click.echo(f"tables and plots are in {results}")


@bench.command("speed")
@click.option(
    "--suite", "suites", multiple=True, type=click.Choice(list(SUITES)), default=list(SUITES)
)
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="quick",
    help="Whose backbones of the digits benchmark; pretrained now where they are missing.",
)
@click.option("--runs", type=PATH, default=ROOT / "runs" / "digits", help="Backbones.")
@click.option("--results", type=PATH, default=RESULTS / "speed", help="Rows and table.")
@data_option
def bench_speed_command(
    suites: tuple[str, ...], profile: str, runs: Path, results: Path, data_root: Path | None
) -> None:
    """Speed as ratios measured in one run, one thread: steps, training, prediction, scale.

    Example: da-compose bench speed --suite step
    """
    for folder in (runs, results):
        commands.check_folder(folder)
    chosen = replace(PROFILES[profile], seeds=(0,))
    setting = Setting(load_benchmark_data(data_root), chosen, runs)
    bench_speed(setting, suites, results, click.echo)
    click.echo(f"table: {results / 'table.md'}")


@click.command("report")
@click.option("--results", type=PATH, default=RESULTS / "digits", help="Folder with results.jsonl.")
@click.option("--readme", type=PATH, help="README whose tables are to be made anew.")
def report_command(results: Path, readme: Path | None) -> None:
    """Make tables and plots anew from result rows, and README's tables with --readme.

    Example: da-compose report --readme README.md
    """
    rows = write_report(results)
    if readme:
        update_readme(readme, rows)
        if speed := read_speed_rows(results.parent / "speed"):
            insert_table(readme, "speed", speed_table(speed))
    click.echo(f"tables and plots are in {results}")
