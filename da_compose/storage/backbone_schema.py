"""What the file of a backbone holds beside its network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from da_compose.evidence import FIGURES
from da_compose.model.contract import Shape
from da_compose.storage.schema import (
    CLASSES,
    DOMAINS,
    FINGERPRINT,
    MAPPING,
    OWN_PARTS,
    TEXT,
    Field,
    check_tensors,
    in_words,
    mapping_of,
    mapping_with,
    one_of,
    optional,
    whole,
)

PRETRAINED = "pretrained"  # of a file's `network`
RANGE = Field(
    "null or three numbers from 0 to 255",
    lambda value: (
        value is None
        or (
            isinstance(value, list)
            and len(value) == 3
            and all(type(one) in (int, float) and 0 <= one <= 255 for one in value)
        )
    ),
)
ROUNDING = 1e-3
LARGEST_IMAGE = 4096  # pixels a side, that no tensor tells
SCHEMA = {
    "kind": one_of("backbone"),
    "format": optional(whole(1)),
    "network": optional(one_of(PRETRAINED)),
    "config": MAPPING,
    "domains": DOMAINS,
    "own_parts": optional(mapping_of(mapping_with(OWN_PARTS))),
    "num_images": mapping_of(whole(1, 2**48)),
    "pixels": optional(mapping_of(RANGE)),
    "class_names": CLASSES,
    "fingerprint": FINGERPRINT,
    "versions": mapping_of(TEXT),
    "notes": MAPPING,
}


def check_knowledge(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], config: Shape
) -> None:
    """Raise ValueError where knowledge of the sources is not as `collect_knowledge` makes it."""
    sources = metadata["num_images"]
    if unknown := sorted(sources.keys() - set(metadata["domains"])):
        raise ValueError(f"images are counted of {in_words({'no domains': unknown})}")
    expected = {}
    for name in sources:
        features = tensors.get(f"knowledge.{name}.block_features", torch.empty(0))
        count, size = len(features), features.shape[2:]  # of tokens not square
        shape = (count, config.channels, *(size if len(size) == 2 else (1, 1)))
        shapes = {
            "first": torch.empty(config.embedding, dtype=torch.float32, device="meta"),
            "second": torch.empty(config.embedding, dtype=torch.float32, device="meta"),
            "block_features": torch.empty(shape, dtype=torch.half, device="meta"),
            "labels": torch.empty(count, dtype=torch.long, device="meta"),
        }
        expected |= {f"knowledge.{name}.{part}": value for part, value in shapes.items()}
    check_tensors(tensors, expected)
    for name, values in tensors.items():
        part = name.rpartition(".")[2]
        if not values.numel():
            raise ValueError(f"{name} is empty")
        least = tensors[f"{name.removesuffix(part)}first"].square()  # of a mean of squares
        if part == "second" and (values < least * (1 - ROUNDING) - ROUNDING).any():
            raise ValueError(f"{name} is below the square of the mean")
        if part == "labels" and not 0 <= values.min() <= values.max() < config.num_classes:
            raise ValueError(f"{name} are not classes from 0 to {config.num_classes - 1}")


def check_rehearsal(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where there is a rehearsal, and not as `rehearse` makes it."""
    if not tensors:
        return
    count = tensors.get("rehearsal.accuracy", torch.empty(0)).shape[:1]
    doubles = {"figures": (*count, len(FIGURES)), "accuracy": tuple(count)}
    expected = {
        f"rehearsal.{part}": torch.empty(shape, dtype=torch.double, device="meta")
        for part, shape in doubles.items()
    }
    for part in ("mock", "images"):
        expected[f"rehearsal.{part}"] = torch.empty(*count, dtype=torch.long, device="meta")
    check_tensors(tensors, expected)
    if not tensors["rehearsal.mock"].unique().numel() > 1:
        raise ValueError("rehearsal is of fewer than two mock targets")
    ranges = {"accuracy": (0, 1), "figures": (-1, 1.01), "images": (1, 2**31)}
    for part, (low, high) in ranges.items():
        values = tensors[f"rehearsal.{part}"]
        if not low <= values.min() <= values.max() <= high:
            raise ValueError(f"rehearsal.{part} is not from {low} to {high}")
