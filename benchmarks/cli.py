"""The `da-compose` command: each command parses, calls one function, prints."""

import csv
import os
import re
import sys
import warnings
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from safetensors import SafetensorError

from adapters import STRATEGIES, adapt, load_adaptation
from adapters.adapt import TRAINS
from benchmarks import commands
from benchmarks.bench import bench_digits, load_benchmark_data
from benchmarks.digits import NETWORKS, PROFILES, RECIPES
from benchmarks.digits import STRATEGIES as BENCH_STRATEGIES
from benchmarks.grid import BACKENDS
from benchmarks.measure import ROOT
from benchmarks.report import RESULTS, insert_table, update_readme, write_report
from benchmarks.speed.bench import SUITES, bench_speed, read_speed_rows
from benchmarks.speed.bench import markdown as speed_table
from benchmarks.speed.setting import Setting
from benchmarks.tables import groups, terminal
from da_compose import load_backbone
from da_compose.parallel import process_group, rank
from data_prep import load_digit_domain

PATH = click.Path(path_type=Path)
STEPS = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)  # what every generator in use takes
data_option = click.option(
    "--data",
    "data_root",
    type=PATH,
    envvar="DA_COMPOSE_DATA",
    help="Folder with digits/ inside. Else ./data, then a download, then the bundled set.",
)
seed_option = click.option("--seed", type=SEED, default=0, help="Seed of everything random.")
device_option = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
backbone_option = click.option("--backbone", required=True, type=PATH, help="Backbone file.")


class Commands(click.Group):
    """Commands that end in one line, not a traceback, on a user's mistake."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly: the reader of our output has gone
        except BrokenExecutor as error:
            raise click.ClickException(
                "a worker process was killed, perhaps for lack of memory; "
                "start again with fewer --processes: finished cells are kept"
            ) from error
        except (ValueError, OSError, SafetensorError) as error:
            raise click.ClickException(str(error)) from error


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name).cpu()  # a meta tensor holds nothing to copy
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise click.BadParameter(
            f"{name!r} cannot be used here ({first}); try --device cpu"
        ) from error
    return name


def _say(text: str) -> None:
    click.echo(text)


@click.group(cls=Commands, context_settings={"show_default": True})
@click.version_option(package_name="da-compose")
def main() -> None:
    """Adapt one backbone to many domains with 64 learned numbers each.

    Example: da-compose bench digits
    """
    warnings.showwarning = lambda message, *_, **__: click.echo(f"warning: {message}", err=True)


@main.command()
@click.argument("domains", nargs=-1)
@data_option
def prepare(domains: tuple[str, ...], data_root: Path | None) -> None:
    """Prepare digit DOMAINS (default: the benchmark's) and say what and where from.

    Example: da-compose prepare mnist usps
    """
    if domains:
        prepared = [load_digit_domain(name, data_root=data_root) for name in domains]
    else:
        data = load_benchmark_data(data_root)
        prepared = list(data.prepared.values())
        for note in data.chosen.notes:
            _say(f"note: {note}")
    for domain in prepared:
        _say(
            f"{domain.name}: {len(domain.train):,} training and {len(domain.test):,} test images; "
            f"from: {domain.origin}; fingerprint {domain.fingerprint}"
        )


@main.command()
@click.argument("out", type=PATH)
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="strong")
@click.option("--network", type=click.Choice(list(NETWORKS)), default="compositional")
@click.option("--source", "sources", multiple=True, help="A source domain; repeat. [default: all]")
@click.option("--target", help="Domain left out. [default: the benchmark's target]")
@click.option("--steps", type=STEPS, default=PROFILES["quick"].pretrain_steps)
@data_option
@seed_option
@device_option
def pretrain(out: Path, sources: tuple[str, ...], seed: int, device: str, **options: Any) -> None:
    """Pretrain a backbone on labelled digit domains and write it to OUT.

    An interrupted run goes on when it is started again with the same options. On several cores or
    GPUs, which share every batch: torchrun --nproc-per-node 2 -m benchmarks.cli pretrain OUT ...

    Example: da-compose pretrain runs/digits/backbone.safetensors --recipe strong
    """
    commands.check_output(out)
    with process_group(_device(device)) as own_device:
        commands.pretrain_digits(out, sources=sources, seed=seed, device=own_device, **options)
        if rank() == 0:
            _say(f"wrote {out}")


@main.command("adapt")
@backbone_option
@click.option("--images", required=True, type=PATH, help="Folder of pictures, or .npz.")
@click.option("--out", required=True, type=PATH, help="Adapter file to write.")
@click.option("--strategy", type=click.Choice(list(STRATEGIES)), default="information_maximization")
@click.option("--trains", type=click.Choice(TRAINS), default="mixture_weights")
@click.option("--start", default="nearest", help="mean, nearest, or a domain of the backbone.")
@click.option("--steps", type=STEPS, default=100)
@click.option("--name", help="Name of the new domain. [default: from --out]")
@seed_option
@device_option
def adapt_command(
    backbone: Path, images: Path, out: Path, name: str | None, device: str, **options: Any
) -> None:
    """Adapt a backbone to a folder of unlabelled pictures.

    Example: da-compose adapt --backbone backbone.safetensors --images scans/site-7
    --out site-7.safetensors
    """
    commands.check_output(out, backbone, images)
    loaded = load_backbone(backbone, _device(device))
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", out.stem).strip("-_.") or "target"
    adaptation = adapt(loaded, images, name=name, **options)
    adaptation.save(out)
    for model, scores in adaptation.scores.items():
        _say(
            f"{model}: information {scores.information:.3f} nats, "
            f"confidence {scores.confidence:.3f}, heads agree on {100 * scores.agreement:.1f} %"
        )
    _say(
        f"wrote {out}: {adaptation.learned_parameters} learned numbers, "
        f"{out.stat().st_size:,} bytes; start {adaptation.notes['start']}"
    )


@main.command()
@backbone_option
@click.option("--adapter", required=True, type=PATH, help="Adapter file of the domain.")
@click.argument("images", type=PATH)
def predict(backbone: Path, adapter: Path, images: Path) -> None:
    """Predict IMAGES (a folder, a picture or .npz) and print CSV: path, class, confidence.

    Example: da-compose predict --backbone backbone.safetensors --adapter site-7.safetensors
    scans/site-7 > predictions.csv
    """
    adaptation = load_adaptation(adapter, load_backbone(backbone))
    rows = commands.predictions(adaptation, images)
    first = next(rows)  # before anything is printed: nothing is, where no image can be read
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows(chain([("path", "class", "confidence"), first], rows))


@main.command()
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", required=True, help="A digit domain, or a labelled .npz file.")
@data_option
def evaluate(backbone: Path, adapter: Path | None, domain: str, data_root: Path | None) -> None:
    """Accuracy on the test split of a labelled domain, in all and by class.

    Example: da-compose evaluate --backbone backbone.safetensors --adapter usps.safetensors
    --domain usps
    """
    for line in commands.evaluation(load_backbone(backbone), adapter, domain, data_root):
        _say(line)


@main.command("export")
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", help="A domain of the backbone, in place of --adapter.")
@click.option("--out", required=True, type=PATH, help="File to write: .onnx, or .pt2 (torch).")
def export_command(backbone: Path, adapter: Path | None, domain: str | None, out: Path) -> None:
    """Export one domain as a file that runs without da-compose: pixels in, probabilities out.

    Example: da-compose export --backbone backbone.safetensors --adapter site-7.safetensors
    --out site-7.onnx
    """
    for line in commands.exported(backbone, adapter, domain, out):
        _say(line)


@main.command()
@click.argument("file", type=PATH)
def inspect(file: Path) -> None:
    """What a backbone or an adapter FILE holds.

    Example: da-compose inspect site-7.safetensors
    """
    for line in commands.description(file):
        _say(line)


@main.group()
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
    device = _device(device)
    for folder in (runs, results):
        commands.check_folder(folder)
    data = load_benchmark_data(data_root, target)
    rows = bench_digits(
        data, chosen, runs=runs, results=results, device=device, say=_say, **options
    )
    own = (chosen.name, data.fingerprint)
    for group in groups(row for row in rows if (row.profile, row.data_fingerprint) == own):
        Console().print(terminal(group))
    _say(f"tables and plots are in {results}")


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
    bench_speed(setting, suites, results, _say)
    _say(f"table: {results / 'table.md'}")


@main.command("report")
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
    _say(f"tables and plots are in {results}")


if __name__ == "__main__":
    main()
