"""The command `da-compose adapt`."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from adapters import Adaptation, adapt
from adapters.config import CHOICES, OUTCOME
from adapters.parts import ADAPTED, DIRECTED, MIXED
from adapters.parts import STEPS as USUAL_STEPS
from benchmarks.cli.files import check_output
from benchmarks.cli.named_images import NamedImages, read_named_images
from benchmarks.cli.pretraining import domain_name
from benchmarks.cli.text import printable
from benchmarks.options import (
    PATH,
    STEPS,
    adding,
    backbone_option,
    device_of,
    device_option,
    json_option,
    quiet_option,
    seed_option,
)
from da_compose import load_backbone
from da_compose.model.domain import check_name
from da_compose.progress import phase, remark
from da_compose.storage.locks import alone
from da_compose.storage.schema import short

how_options = adding(
    (
        click.option(
            "--strategy",
            type=click.Choice(CHOICES),
            help=f"[default: {MIXED.strategy}; on a pretrained network {DIRECTED.strategy}, "
            f"with --steps or --trains {DIRECTED.tries[0]}]",
        ),
        click.option("--trains", type=click.Choice(ADAPTED), default="mixture_weights"),
        click.option(
            "--start", default="nearest", help="mean, nearest, or a domain of the backbone."
        ),
        click.option(
            "--steps",
            type=STEPS,
            help="[default: "
            f"{', '.join(f'{steps} for {what}' for what, steps in USUAL_STEPS.items())}]",
        ),
        click.option(
            "--guard/--no-guard", default=True, help="Back to the start where it is the safer one."
        ),
        click.option("--bfloat16", is_flag=True, help="Blocks compute in it, which may be faster."),
        click.option(
            "--cuda-graph", is_flag=True, help="On a GPU: record a step once and replay it."
        ),
    )
)


@click.command("adapt")
@backbone_option
@click.option("--images", required=True, type=PATH, help="Folder of pictures, or .npz.")
@click.option("--out", required=True, type=PATH, help="Adapter file to write.")
@how_options
@click.option("--name", help="Name of the new domain. [default: from --out]")
@click.option("--report", type=PATH, help="HTML report to write too: one file to look at and send.")
@seed_option
@device_option
@json_option
@quiet_option
def adapt_command(
    backbone: Path,
    images: Path,
    out: Path,
    name: str | None,
    report: Path | None,
    device: str,
    as_json: bool,
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
        adaptation, found = _adapt(backbone, images, out, name, report, device, options)
        if as_json:
            click.echo(json.dumps(as_document(adaptation, found, out, report), indent=1))
            return
        for line in said(adaptation, out, report):
            click.echo(line)


def _adapt(
    backbone: Path,
    images: Path,
    out: Path,
    name: str | None,
    report: Path | None,
    device: str,
    options: dict[str, Any],
) -> tuple[Adaptation, NamedImages]:
    """Adapt, and write the adapter and the report."""
    name = name or domain_name(out.stem, "target")
    check_name(name)
    loaded = load_backbone(backbone, device_of(device))
    found = read_named_images(images, loaded.network.config.image_size)
    classes = short(", ".join(loaded.class_names))
    remark(printable(f"{len(found.images):,} pictures; classes of the backbone: {classes}"))
    adaptation = adapt(loaded, found.images, name=name, **options)
    adaptation.save(out)
    if report is not None:
        from benchmarks.reports.html import write_adaptation_report

        with phase("writing the report"):
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
    return adaptation, found


def said(adaptation: Adaptation, out: Path, report: Path | None) -> Iterator[str]:
    """Lines of what came of an adaptation."""
    yield from estimated(adaptation)
    for model, scores in adaptation.scores.items():
        yield (
            f"{model}: information {scores.information:.3f} nats, "
            f"confidence {scores.confidence:.3f}, heads agree on {100 * scores.agreement:.1f} %"
        )
    if chosen := adaptation.notes.get("chosen"):
        yield f"auto: {chosen}"
    yield from guarded(adaptation)
    yield (
        f"wrote {out}: {adaptation.learned_parameters} learned numbers, "
        f"{out.stat().st_size:,} bytes; start {adaptation.notes['start']}"
    )
    if report is not None:
        yield f"wrote {report}"


def as_document(
    adaptation: Adaptation, found: NamedImages, out: Path, report: Path | None
) -> dict[str, Any]:
    """The same for scripts, of the keys that docs/guides/shell.md names; shares from 0 to 1."""
    estimates = {model: asdict(one) for model, one in adaptation.estimates.items()}
    return {
        "adapter": str(out),
        "report": None if report is None else str(report),
        "domain": adaptation.domain.name,
        "images": len(found.images),
        "left_out": [{"path": str(path), "reason": reason} for path, reason in found.left_out],
        "strategy": adaptation.notes.get("chosen") or adaptation.notes["strategy"],
        "start": adaptation.notes["start"],
        "learned_parameters": adaptation.learned_parameters,
        "meaningless": bool(adaptation.notes.get("meaningless")),
        "estimate": estimates.get(OUTCOME),
        "estimates": estimates,
        "guard": adaptation.notes.get("guard"),
        "scores": {model: asdict(scores) for model, scores in adaptation.scores.items()},
    }


def estimated(adaptation: Adaptation) -> Iterator[str]:
    """How accurate the adapted model is expected to be, and what it was adapted from."""
    if adaptation.notes.get("meaningless"):
        why = "the images look like nothing the sources held; are they right?"
        yield f"estimated accuracy: none, {why}"
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


def guarded(adaptation: Adaptation) -> Iterator[str]:
    """What the guard says of what was learned."""
    if verdict := adaptation.notes.get("guard"):
        kept = "trusted" if verdict["trusted"] else "not trusted, the start is kept"
        yield f"guard: {kept}: {verdict['reason']}"


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
