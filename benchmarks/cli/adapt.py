"""The command `da-compose adapt`."""

import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from adapters import Adaptation, adapt
from adapters.config import CHOICES, OUTCOME
from adapters.parts import ADAPTED, DIRECTED, MIXED
from adapters.parts import STEPS as USUAL_STEPS
from benchmarks.cli.files import check_output
from benchmarks.cli.named_images import read_named_images
from benchmarks.cli.pretraining import domain_name
from benchmarks.options import (
    PATH,
    STEPS,
    backbone_option,
    device_of,
    device_option,
    seed_option,
)
from da_compose import load_backbone
from da_compose.model.domain import check_name
from da_compose.storage.locks import alone


@click.command("adapt")
@backbone_option
@click.option("--images", required=True, type=PATH, help="Folder of pictures, or .npz.")
@click.option("--out", required=True, type=PATH, help="Adapter file to write.")
@click.option(
    "--strategy",
    type=click.Choice(CHOICES),
    help=f"[default: {MIXED.strategy}; on a pretrained network {DIRECTED.strategy}]",
)
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
    check_output(out, backbone, images)
    if report is not None:
        check_output(report, backbone, images)
        if report.resolve() == out.resolve():
            raise click.BadParameter(f"--report and --out are both {out}; name another file")
        import_module("benchmarks.reports.html")  # now, as its packages may be missing
    with alone(out, folder=False):
        _adapt(backbone, images, out, name, report, device, options)


def _adapt(
    backbone: Path,
    images: Path,
    out: Path,
    name: str | None,
    report: Path | None,
    device: str,
    options: dict[str, Any],
) -> None:
    """Adapt, write the adapter and the report, and say what came of it."""
    name = name or domain_name(out.stem, "target")
    check_name(name)
    loaded = load_backbone(backbone, device_of(device))
    found = read_named_images(images, loaded.network.config.image_size)
    adaptation = adapt(loaded, found.images, name=name, **options)
    adaptation.save(out)
    for line in estimated(adaptation):
        click.echo(line)
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
        from benchmarks.reports.html import write_adaptation_report

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


def estimated(adaptation: Adaptation) -> Iterator[str]:
    """How accurate the adapted model is expected to be, and what it was adapted from."""
    if adaptation.notes.get("meaningless"):
        yield "estimated accuracy: none, the images mean nothing to this backbone; are they right?"
        return
    if adaptation.estimate is None:
        yield "estimated accuracy: none, this backbone was never rehearsed; pretrain one anew"
        return
    others = (
        f"{model.replace('_', ' ')} {100 * found.accuracy:.0f} %"
        for model, found in adaptation.estimates.items()
        if model != OUTCOME
    )
    yield f"estimated accuracy: {adaptation.estimate}; {', '.join(others)}"


def command_line(context: click.Context) -> str:
    """The command that runs, with every option spelled out, as a shell takes it."""
    words = ["da-compose", str(context.info_name)]
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if isinstance(value, bool):
            words += (option.opts if value else option.secondary_opts)[:1]
        elif value is not None:
            words += [option.opts[0], str(value)]
    return shlex.join(words)
