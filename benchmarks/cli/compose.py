"""The command `da-compose compose`."""

from pathlib import Path

import click

from benchmarks.cli.files import check_output
from benchmarks.options import IMAGE_SIZE, PATH
from da_compose import compose


@click.command("compose")
@click.argument("out", type=PATH)
@click.argument("experts", nargs=-1, required=True, metavar="NAME=PATH...")
@click.option("--network", required=True, help="timm:NAME, torchvision:NAME, or a NAME of either.")
@click.option("--classes", type=PATH, help="File of class names, a line each, that of 0 first.")
@click.option("--image-size", type=IMAGE_SIZE, help="In pixels. [default: a backbone's, or 224]")
def compose_command(
    out: Path,
    experts: tuple[str, ...],
    network: str,
    classes: Path | None,
    image_size: int | None,
) -> None:
    """Make a backbone OUT of fine-tuned networks, each a file of weights or a backbone's.

    They become its templates and domains: no picture of a source is needed.

    Example: da-compose compose backbone.safetensors site-1=site1.pth site-2=site2.pth
    --network resnet18 --classes classes.txt
    """
    paths = dict(map(named_path, experts))
    if len(paths) < len(experts):
        raise click.UsageError("two experts have one name; name each differently")
    check_output(out, *paths.values())
    names = None
    if classes is not None:
        lines = classes.read_text(encoding="utf-8").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    made = compose(paths, network=network, class_names=names, image_size=image_size)
    made.save(out)
    shape = made.network.config
    click.echo(
        f"wrote {out}: {len(paths)} experts, {shape.num_layers} layers, "
        f"{shape.num_layers * shape.num_templates} numbers a domain"
    )


def named_path(text: str) -> tuple[str, Path]:
    """NAME=PATH, apart."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise click.UsageError(f"expected NAME=PATH, got {text!r}, such as site-1=site1.pth")
    return name, Path(path)
