"""The `da-compose` command: each command parses, calls one function, prints."""

import sys
import warnings
from concurrent.futures import BrokenExecutor
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any

import click
from safetensors import SafetensorError

from adapters import adapt
from adapters.config import CHOICES
from adapters.parts import ADAPTED
from adapters.parts import STEPS as USUAL_STEPS
from benchmarks.cli import actions
from benchmarks.cli.bench import bench, report_command
from benchmarks.cli.fetch import fetch
from benchmarks.cli.mixture_options import mixture_options
from benchmarks.cli.named_images import read_named_images
from benchmarks.cli.options import (
    NAME_OR_PATH,
    PATH,
    STEPS,
    backbone_option,
    data_option,
    device_of,
    device_option,
    picture_options,
    seed_option,
    without_pictures,
)
from benchmarks.cli.pretraining import RANDOM, domain_name, pretrain_digits, pretrain_pictures
from benchmarks.cli.tasks import train_tasks_command, transfer_command
from benchmarks.harness.plan import NETWORKS
from benchmarks.reports.html import write_adaptation_report
from da_compose import load_backbone
from da_compose.parallel import process_group
from da_compose.storage.trunk_weights import DOWNLOAD
from da_compose.training.recipes import DIGIT_RECIPES, PICTURE_RECIPES

RECIPES = list(DIGIT_RECIPES | PICTURE_RECIPES)


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
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8
    warnings.showwarning = lambda message, *_, **__: click.echo(f"warning: {message}", err=True)


@main.command()
@click.argument("domains", nargs=-1)
@picture_options
@data_option
def prepare(domains: tuple[str, ...], pictures: str | None, **options: Any) -> None:
    """Prepare DOMAINS (default: the benchmark's) of digits, or of --pictures.

    Says what and where from; pictures that are left out are listed.

    Example: da-compose prepare mnist usps
    """
    if pictures is None:
        lines = actions.prepared_digits(domains, **without_pictures(options))
    else:
        lines = actions.prepared_pictures(domains, pictures, **options)
    for line in lines:
        click.echo(line)


@main.command()
@click.argument("out", type=PATH)
@click.option(
    "--recipe", type=click.Choice(RECIPES), default="strong", help="paper: of digits only."
)
@click.option("--network", type=click.Choice(NETWORKS), default="compositional")
@click.option("--source", "sources", multiple=True, help="A source domain; repeat. [default: all]")
@click.option("--target", help="Domain left out. [default: digits: the benchmark's; else none]")
@click.option("--steps", type=STEPS, help="[default: the quick profile's]")
@picture_options
@click.option(
    "--patch-size",
    type=click.IntRange(min=1),
    help="In pixels. [default: an eighth of the image; on a trunk's map: 1]",
)
@click.option("--trunk", help="Frozen torchvision network in front, such as resnet18.layer3.")
@click.option(
    "--trunk-weights", help=f"Its .safetensors file, {DOWNLOAD}, or, for a trial, {RANDOM}."
)
@mixture_options
@data_option
@seed_option
@device_option
def pretrain(out: Path, pictures: str | None, device: str, **options: Any) -> None:
    """Pretrain a backbone on labelled domains of digits, or of --pictures, and write it to OUT.

    An interrupted run goes on when it is started again with the same options. On several cores or
    GPUs, which share every batch: torchrun --nproc-per-node 2 -m da_compose pretrain OUT ...

    Example: da-compose pretrain runs/my/backbone.safetensors --pictures scans --target site-7
    """
    if pictures is None:
        options = without_pictures(options)
    actions.check_output(out)
    with process_group(device_of(device)) as own_device:
        if pictures is None:
            lines = pretrain_digits(out, device=own_device, **options)
        else:
            lines = pretrain_pictures(out, pictures, device=own_device, **options)
        for line in lines:
            click.echo(line)


@main.command("adapt")
@backbone_option
@click.option("--images", required=True, type=PATH, help="Folder of pictures, or .npz.")
@click.option("--out", required=True, type=PATH, help="Adapter file to write.")
@click.option("--strategy", type=click.Choice(CHOICES), default="information_maximization")
@click.option("--trains", type=click.Choice(ADAPTED), default="mixture_weights")
@click.option("--start", default="nearest", help="mean, nearest, or a domain of the backbone.")
@click.option(
    "--steps",
    type=STEPS,
    help=f"[default: {', '.join(f'{steps} for {what}' for what, steps in USUAL_STEPS.items())}]",
)
@click.option(
    "--guard/--no-guard", default=True, help="Back to the start where it is the safer one."
)
@click.option("--bfloat16", is_flag=True, help="Blocks compute in it, which may be faster.")
@click.option("--cuda-graph", is_flag=True, help="On a GPU: record a step once and replay it.")
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
    actions.check_output(out, backbone, images)
    if report is not None:
        actions.check_output(report, backbone, images)
        if report.resolve() == out.resolve():
            raise click.BadParameter(f"--report and --out are both {out}; name another file")
    loaded = load_backbone(backbone, device_of(device))
    name = name or domain_name(out.stem, "target")
    found = read_named_images(images, loaded.network.config.image_size)
    adaptation = adapt(loaded, found.images, name=name, **options)
    adaptation.save(out)
    for model, scores in adaptation.scores.items():
        click.echo(
            f"{model}: information {scores.information:.3f} nats, "
            f"confidence {scores.confidence:.3f}, heads agree on {100 * scores.agreement:.1f} %"
        )
    if chosen := adaptation.notes.get("chosen"):
        click.echo(f"auto: {chosen}")
    if verdict := adaptation.notes.get("guard"):
        kept = "trusted" if verdict["trusted"] else "not trusted, the start is kept"
        click.echo(f"guard: {kept}: {verdict['reason']}")
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
            command=actions.command_line(click.get_current_context()),
            seed=options["seed"],
        )
        click.echo(f"wrote {report}")


@main.command()
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", help="A domain or task of the backbone, in place of --adapter.")
@click.argument("images", type=PATH)
def predict(backbone: Path, adapter: Path | None, domain: str | None, images: Path) -> None:
    """Predict IMAGES (a folder, a picture or .npz) and print CSV: path, class, confidence.

    Example: da-compose predict --backbone backbone.safetensors --adapter site-7.safetensors
    scans/site-7 > predictions.csv
    """
    loaded = load_backbone(backbone)
    chosen = actions.chosen_domain(loaded, adapter, domain)
    rows = actions.predictions(loaded, chosen, images)
    first = next(rows)  # before anything is printed: nothing is, where no image can be read
    for row in chain([("path", "class", "confidence"), first], rows):
        sys.stdout.write(actions.csv_line(*row))


@main.command()
@backbone_option
@click.option(
    "--adapter",
    type=PATH,
    help="Adapter file. [default: the plain source-only model; of trained tasks, the --domain's]",
)
@click.option(
    "--domain",
    required=True,
    type=NAME_OR_PATH,
    help="A digit domain or task, or a labelled .npz file or folder <class>/<picture>.",
)
@data_option
def evaluate(backbone: Path, adapter: Path | None, domain: str, data_root: Path | None) -> None:
    """Accuracy on the test split of a labelled domain, or on a whole folder, in all and by class.

    Example: da-compose evaluate --backbone backbone.safetensors --adapter usps.safetensors
    --domain usps
    """
    for line in actions.evaluation(load_backbone(backbone), adapter, domain, data_root):
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
    for line in actions.exported(backbone, adapter, domain, out):
        click.echo(line)


@main.command()
@click.argument("file", type=PATH)
def inspect(file: Path) -> None:
    """What a backbone or an adapter FILE holds.

    Example: da-compose inspect site-7.safetensors
    """
    for line in actions.description(file):
        click.echo(line)


main.add_command(bench)
main.add_command(fetch)
main.add_command(report_command)
main.add_command(train_tasks_command)
main.add_command(transfer_command)
