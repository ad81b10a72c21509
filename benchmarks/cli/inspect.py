"""The command `da-compose inspect`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from benchmarks.cli.text import say
from benchmarks.options import PATH
from da_compose import load_backbone
from da_compose.model.signature import format_signature, num_runs, sharpness, signature_of
from da_compose.storage.adapter import read_adapter
from da_compose.storage.backbone import read_backbone
from da_compose.storage.backbone_schema import PRETRAINED
from da_compose.storage.files import kind_of, understood

SHADES = " ░▒▓█"  # of mixture weights from 0 to 1


@click.command()
@click.argument("file", type=PATH)
def inspect(file: Path) -> None:
    """What a backbone or an adapter FILE holds.

    Example: da-compose inspect site-7.safetensors
    """
    for line in description(file):
        say(line)


def description(path: Path) -> list[str]:
    """Lines that say what a backbone or adapter file holds."""
    with understood(path):
        return [*_described_file(path)]


def _described_file(path: Path) -> Iterator[str]:
    read = read_adapter if kind_of(path) == "adapter" else read_backbone
    tensors, metadata = read(path)
    yield f"{path}: {metadata['kind']}, {path.stat().st_size:,} bytes"
    yield f"fingerprint {metadata['fingerprint']}, written by {metadata['versions']}"
    parts = metadata.get("own_parts", {})
    own = {name: part["own_classes"] for name, part in parts.items() if part.get("own_classes")}
    if not own or len(own) < len(parts):
        yield f"classes: {', '.join(metadata['class_names'])}"
    yield from (f"classes of {name}: {', '.join(classes)}" for name, classes in own.items())
    if metadata["kind"] == "backbone":
        config = load_backbone(path).network.config
        yield f"network: {config}"
        if config.signature is not None:
            yield f"fixed signature {format_signature(config.signature)}"
        yield f"domains: {', '.join(metadata['domains'])}"
    else:
        yield f"domain: {metadata['domain']}"
    yield f"notes: {metadata['notes']}"
    for name, tensor in tensors.items():
        if not name.endswith("mixture.xi"):
            continue
        domain = _domain_of(name, metadata)
        if metadata.get("coefficients") or metadata.get("network") == PRETRAINED:
            yield f"coefficients of {domain}, how far along each direction, a line a layer"
            yield from (
                "  " + " ".join(f"{value:6.2f}" for value in row) for row in tensor.tolist()
            )
        else:
            yield f"mixture weights of {domain}, a line a layer"
            yield from _drawn(tensor.softmax(dim=-1))


def _domain_of(name: str, metadata: Mapping[str, Any]) -> str:
    """The domain that a tensor `network.domains._domains.<number>...` of a file belongs to."""
    numbers = [part for part in name.split(".") if part.isdigit()]
    return metadata["domains"][int(numbers[0])] if numbers else metadata["domain"]


def _drawn(mixture: Tensor) -> Iterator[str]:
    """A mixture (L, K) in figures, then each layer's weights as numbers and as shades."""
    signature = signature_of(mixture)
    yield (
        f"signature {format_signature(signature)}; runs {num_runs(signature)}; "
        f"mean sharpness {sharpness(mixture).mean():.2f}"
    )
    shades = mixture * (len(SHADES) - 1)
    for weights, row in zip(mixture.tolist(), shades.round().int().tolist(), strict=True):
        numbers = " ".join(f"{weight:.2f}" for weight in weights)
        yield f"  {numbers}  |{''.join(SHADES[shade] for shade in row)}|"
