"""The command `da-compose export`."""

from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.cli.files import check_output
from benchmarks.cli.text import say
from benchmarks.harness.chosen_model import chosen_model
from benchmarks.options import PATH, backbone_option
from da_compose import load_backbone
from da_compose.storage.export import check_format, export


@click.command("export")
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", help="A domain of the backbone, in place of --adapter.")
@click.option("--out", required=True, type=PATH, help="File to write: .onnx, or .pt2 (torch).")
def export_command(backbone: Path, adapter: Path | None, domain: str | None, out: Path) -> None:
    """Export one domain as a file that runs without da-compose: pixels in, probabilities out.

    Example: da-compose export --backbone backbone.safetensors --adapter site-7.safetensors
    --out site-7.onnx
    """
    for line in exported(backbone, adapter, domain, out):
        say(line)


def exported(backbone: Path, adapter: Path | None, domain: str | None, out: Path) -> Iterator[str]:
    """Export one domain of a backbone, or an adapter's, to `out`; lines that say what it is."""
    check_format(out)
    check_output(out, backbone, *([] if adapter is None else [adapter]))
    loaded = load_backbone(backbone)
    chosen = chosen_model(loaded, adapter, domain).domain
    difference = export(loaded, chosen, out)
    config = loaded.network.config
    shape = f"{config.image_channels}, {config.image_size}, {config.image_size}"
    yield f"wrote {out}: domain {chosen.name}, {out.stat().st_size:,} bytes"
    yield f"input: float32 pixels in [0, 1], (batch, {shape})"
    yield f"output: float32 class probabilities, (batch, {len(loaded.class_names_of(chosen))})"
    yield f"largest difference from PyTorch on random images: {difference:.1e}"
