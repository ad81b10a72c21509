"""One domain as a file that runs without this package: pixels in, class probabilities out."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from math import inf
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim, ExportedProgram

from da_compose.context import undisturbed
from da_compose.model.domain import Domain
from da_compose.model.plain import Classifier, materialize
from da_compose.storage.backbone import Backbone, versions
from da_compose.storage.files import replacing

FORMATS = (".onnx", ".pt2")
TRACED_BATCH = 2
CHECKED_BATCHES = (1, 3)  # other sizes than the traced one: none must be built in
TOLERANCE = 1e-4  # of a probability
OPSET = 18  # the one torch's exporter is written in: nothing is converted, old runtimes read it
Predict = Callable[[Tensor], Tensor]


@undisturbed()
def export(backbone: Backbone, domain: Domain, path: str | Path) -> float:
    """Write `domain` on `backbone` as ONNX (`.onnx`) or as a torch.export program (`.pt2`).

    The file takes float32 pixels in [0, 1] (B, image channels, S, S), any B, and returns class
    probabilities (B, N). Texts in it (ONNX metadata_props, torch.export extra_files): domain,
    class_names (JSON), image_size, backbone (its fingerprint), versions (JSON).
    Returns the largest difference of a probability from PyTorch's, on random pixels.
    Raises ValueError, and writes nothing, for another ending, a missing package, and where the
    file, read again, differs from PyTorch by more than `TOLERANCE`.
    """
    path = Path(path)
    check_format(path)
    config = backbone.network.config
    classifier = Classifier(materialize(backbone.network, domain)).eval().cpu().float()
    classifier.to(memory_format=torch.contiguous_format)  # else torch.export.save warns
    shape = (config.image_channels, config.image_size, config.image_size)
    metadata = {
        "domain": domain.name,
        "class_names": json.dumps(backbone.class_names_of(domain)),
        "image_size": str(config.image_size),
        "backbone": backbone.fingerprint,
        "versions": json.dumps(versions()),
    }
    example = (torch.zeros(TRACED_BATCH, *shape),)
    program = torch.export.export(classifier, example, dynamic_shapes=({0: Dim("batch")},))
    _check_precision(program, path)
    program.example_inputs = None  # torch.export.save would pickle them
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    write_and_read = _as_onnx if path.suffix.lower() == ".onnx" else _as_pt2
    with replacing(path) as temporary:
        written = write_and_read(program, temporary, metadata)
        return _largest_difference(classifier, written, shape, path)


def _check_precision(program: ExportedProgram, path: Path) -> None:
    """Raise ValueError where a program computes in another precision than float32."""
    values = [node.meta.get("val") for node in program.graph.nodes]
    tensors = [value for value in values if isinstance(value, Tensor)]
    held = {t.dtype for t in (*tensors, *program.state_dict.values()) if t.is_floating_point()}
    if others := sorted(map(str, held - {torch.float32})):
        raise ValueError(
            f"{path} is not written: the program would compute in {', '.join(others)}, expected "
            "float32; leave out `autocast` and call `float()` of what you changed"
        )


def check_format(path: Path, int8: bool = False) -> None:
    """Raise ValueError where `path` ends in none of `FORMATS`, or a package it needs is missing.

    int8: it is to compute in 8-bit integers, which `.pt2` is not written for.
    """
    formats = FORMATS[:1] if int8 else FORMATS
    if path.suffix.lower() not in formats:
        expected = " or ".join(formats)
        words = "8-bit integers need it" if int8 else "the ending is the format"
        raise ValueError(f"{path} must end in {expected}: {words}")
    needed = ("onnx", "onnxscript", "onnxruntime") if path.suffix.lower() == ".onnx" else ()
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ValueError(
            f"an .onnx file needs {', '.join(missing)}: pip install 'da-compose[export]', "
            "or write a .pt2 file, which needs torch alone"
        )


def _largest_difference(
    expected: Predict, written: Predict, shape: tuple[int, ...], path: Path
) -> float:
    """The largest difference of two classifiers on random pixels; ValueError above `TOLERANCE`."""
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for size in CHECKED_BATCHES:
        pixels = torch.rand(size, *shape, generator=generator)
        wanted, found = expected(pixels), written(pixels)
        alike = wanted.shape == found.shape
        difference = (wanted - found).abs().max().item() if alike else inf
        if not difference <= TOLERANCE:  # NaN is refused too
            raise ValueError(
                f"{path} is not written: on {size} random images its probabilities "
                f"{tuple(found.shape)} differ from PyTorch's {tuple(wanted.shape)} "
                f"by {difference:.1e}, expected at most {TOLERANCE:.0e}"
            )
        largest = max(largest, difference)
    return largest


def _as_onnx(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> Predict:
    translated = torch.onnx.export(
        program, dynamo=True, verbose=False, opset_version=OPSET, dynamic_shapes=({0: "batch"},),
        input_names=["pixels"], output_names=["probabilities"],
    )  # fmt: skip
    translated = cast(torch.onnx.ONNXProgram, translated)  # None is for dynamo=False
    translated.model.metadata_props.update(metadata)
    translated.save(path)
    run = by_onnxruntime(path)
    return lambda pixels: torch.from_numpy(run(pixels.numpy()))


def by_onnxruntime(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A file's prediction, pixels (B, 3, S, S) -> probabilities (B, N), on one thread."""
    import onnxruntime  # of the extra `export`: not everyone has it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])


def _as_pt2(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> Predict:
    written = BytesIO()  # on a full disk torch's own writer aborts the process
    torch.export.save(program, written, extra_files=dict[str, object](metadata))
    path.write_bytes(written.getvalue())
    with path.open("rb") as file:
        return torch.export.load(file).module()
