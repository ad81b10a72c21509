"""The `da-compose` command: each command parses, calls one function, prints."""

import csv
import re
import shlex
import sys
import warnings
from concurrent.futures import BrokenExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import click
from safetensors import SafetensorError

from adapters import STRATEGIES, adapt, load_adaptation
from adapters.adapt import TRAINS
from benchmarks import commands
from benchmarks.bench import load_digits
from benchmarks.bench_cli import bench, report_command
from benchmarks.digits import NETWORKS, PROFILES, RECIPES
from benchmarks.html import write_adaptation_report
from benchmarks.named_images import read_named_images
from benchmarks.options import (
    PATH,
    STEPS,
    backbone_option,
    data_option,
    device_of,
    device_option,
    seed_option,
)
from da_compose import load_backbone
from da_compose.parallel import process_group, rank
from data_prep import load_digit_domain


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
        data = load_digits(data_root)
        prepared = list(data.prepared.values())
        for note in data.notes:
            click.echo(f"note: {note}")
    for domain in prepared:
        click.echo(
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
    with process_group(device_of(device)) as own_device:
        commands.pretrain_digits(out, sources=sources, seed=seed, device=own_device, **options)
        if rank() == 0:
            click.echo(f"wrote {out}")


@main.command("adapt")
@backbone_option
@click.option("--images", required=True, type=PATH, help="Folder of pictures, or .npz.")
@click.option("--out", required=True, type=PATH, help="Adapter file to write.")
@click.option("--strategy", type=click.Choice(list(STRATEGIES)), default="information_maximization")
@click.option("--trains", type=click.Choice(TRAINS), default="mixture_weights")
@click.option("--start", default="nearest", help="mean, nearest, or a domain of the backbone.")
@click.option("--steps", type=STEPS, default=100)
@click.option("--name", help="Name of the new domain. [default: from --out]")
@click.option("--report", type=PATH, help="HTML report to write too: one file to look at and send.")
@seed_option
@device_option
def adapt_command(
    backbone: Path,
    images: Path,
    out: Path,
    name: str | None,
    report: Path | None,
    device: str,
    **options: Any,
) -> None:
    """Adapt a backbone to a folder of unlabelled pictures.

    Example: da-compose adapt --backbone backbone.safetensors --images scans/site-7
    --out site-7.safetensors --report site-7.html
    """
    commands.check_output(out, backbone, images)
    if report is not None:
        commands.check_output(report, backbone, images)
        if report.resolve() == out.resolve():
            raise click.BadParameter(f"--report and --out are both {out}; name another file")
    loaded = load_backbone(backbone, device_of(device))
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", out.stem).strip("-_.") or "target"
    found = read_named_images(images, loaded.network.config.image_size)
    adaptation = adapt(loaded, found.images, name=name, **options)
    adaptation.save(out)
    for model, scores in adaptation.scores.items():
        click.echo(
            f"{model}: information {scores.information:.3f} nats, "
            f"confidence {scores.confidence:.3f}, heads agree on {100 * scores.agreement:.1f} %"
        )
    click.echo(
        f"wrote {out}: {adaptation.learned_parameters} learned numbers, "
        f"{out.stat().st_size:,} bytes; start {adaptation.notes['start']}"
    )
    if report is not None:
        write_adaptation_report(
            report,
            adaptation,
            found.images,
            title=f"Adaptation to {name}",
            names=found.names,
            left_out=found.left_out,
            command=command_line(click.get_current_context()),
            seed=options["seed"],
        )
        click.echo(f"wrote {report}")


def command_line(context: click.Context) -> str:
    """The command that runs, with every option spelled out, as a shell takes it."""
    words = ["da-compose", str(context.info_name)]
    for option in context.command.params:
        value = context.params.get(str(option.name))
        words += [] if value is None else [option.opts[0], str(value)]
    return shlex.join(words)


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
        click.echo(line)


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
        click.echo(line)


@main.command()
@click.argument("file", type=PATH)
def inspect(file: Path) -> None:
    """What a backbone or an adapter FILE holds.

    Example: da-compose inspect site-7.safetensors
    """
    for line in commands.description(file):
        click.echo(line)


main.add_command(bench)
main.add_command(report_command)

if __name__ == "__main__":
    main()
