"""One domain as an ONNX file that computes in 8-bit integers: smaller, and faster on CPUs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da_compose.context import undisturbed
from da_compose.images import to_pixels, with_channels
from da_compose.model.domain import Domain
from da_compose.storage.backbone import Backbone
from da_compose.storage.export import by_onnxruntime, check_format, export
from da_compose.storage.files import replacing

LEAST = 10  # images; of fewer the ranges are chance
CALIBRATED = 128  # images that the ranges of activations are taken from
COMPARED = 1000  # images that are classified by both files
BATCH = 16


@undisturbed()
def export_int8(
    backbone: Backbone, domain: Domain, path: str | Path, images: NDArray[np.uint8]
) -> float:
    """Write `domain` on `backbone` as ONNX like `export`, computing in 8-bit integers.

    onnxruntime quantizes weights a channel, activations by their least and largest values on
    128 of the images.
    images: uint8 (M, S, S) or (M, S, S, 3), of the domain, unlabelled.
    Returns the share of the images (of up to 1,000) to which the float file gives the same class:
    the rest bounds what accuracy on them can lose.
    Raises ValueError, and writes nothing, as `export` does, for another ending than .onnx, and for
    fewer than 10 images.
    """
    path = Path(path)
    check_format(path, int8=True)
    if len(images) < LEAST:
        raise ValueError(
            f"8-bit integers take their ranges from at least {LEAST} images of the domain, got "
            f"{len(images)}"
        )
    found = _some(images, COMPARED)
    with replacing(path) as temporary, TemporaryDirectory() as folder:
        exact, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        export(backbone, domain, exact)
        channels = backbone.network.config.image_channels
        with _quiet():
            _quantize(exact, prepared, temporary, _some(found, CALIBRATED), channels)
        kept = _classes(exact, found, channels) == _classes(temporary, found, channels)
        return float(kept.mean())


def _some(images: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """At most so many, evenly from all."""
    return images[np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)]


def _quantize(
    exact: Path, prepared: Path, out: Path, images: NDArray[np.uint8], channels: int
) -> None:
    from onnxruntime import quantization  # of the extra `export`: not everyone has it
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(images, channels)

        def get_next(self) -> dict[Any, Any]:
            pixels = next(self.batches, None)
            return None if pixels is None else {"pixels": pixels}  # pyright: ignore[reportReturnType]

    quant_pre_process(str(exact), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )


def _batches(images: NDArray[np.uint8], channels: int) -> Iterator[NDArray[np.float32]]:
    for first in range(0, len(images), BATCH):
        pixels = with_channels(to_pixels(images[first : first + BATCH]), channels)
        yield pixels.contiguous().numpy()


def _classes(path: Path, images: NDArray[np.uint8], channels: int) -> NDArray[np.intp]:
    """Class indices (M,) by the file."""
    run = by_onnxruntime(path)
    return np.concatenate([run(batch) for batch in _batches(images, channels)]).argmax(axis=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's hints, on the root logger, are for who calls it by hand."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
