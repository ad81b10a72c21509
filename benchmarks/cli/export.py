"""The command `da-compose export`."""

from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.cli.files import check_output
from benchmarks.cli.text import say
from benchmarks.harness.chosen_model import chosen_model
from benchmarks.options import PATH, backbone_option
from da_compose import load_backbone
from da_compose.storage.export import check_format


@click.command("export")
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", help="A domain of the backbone, in place of --adapter.")
@click.option("--out", required=True, type=PATH, help="File to write: .onnx, or .pt2 (torch).")
@click.option(
    "--int8",
    type=PATH,
    help="Unlabelled pictures of the domain: .onnx that computes in 8-bit integers, their ranges "
    "from these. Smaller, faster, a little less exact.",
)
def export_command(
    backbone: Path, adapter: Path | None, domain: str | None, out: Path, int8: Path | None
) -> None:
    """Export one domain as a file that runs without da-compose: pixels in, probabilities out.

    Example: da-compose export --backbone backbone.safetensors --adapter site-7.safetensors
    --out site-7.onnx
    """
    for line in exported(backbone, adapter, domain, out, int8):
        say(line)


def exported(
    backbone: Path, adapter: Path | None, domain: str | None, out: Path, int8: Path | None
) -> Iterator[str]:
    """Export one domain of a backbone, or an adapter's, to `out`; lines that say what it is."""
    check_format(out, int8=int8 is not None)
    check_output(out, *(path for path in (backbone, adapter, int8) if path is not None))
    loaded = load_backbone(backbone)
    model = chosen_model(loaded, adapter, domain)
    found = model.export(out, int8=int8)
    config = loaded.network.config
    shape = f"{config.image_channels}, {config.image_size}, {config.image_size}"
    yield f"wrote {out}: domain {model.domain.name}, {out.stat().st_size:,} bytes"
    yield f"input: float32 pixels in [0, 1], (batch, {shape})"
    yield f"output: float32 class probabilities, (batch, {len(model.class_names)})"
    if int8 is None:
        yield f"largest difference from PyTorch on random images: {found:.1e}"
    else:
        yield f"8-bit integers: {100 * found:.1f} % of the pictures keep their class"
