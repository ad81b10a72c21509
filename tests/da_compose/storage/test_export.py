import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import da_compose
from da_compose import Backbone, CompositionalNetwork, probabilities
from da_compose.images import to_pixels
from da_compose.model.contract import Shape
from da_compose.storage.export import FORMATS, _largest_difference, check_format, export
from da_compose.storage.int8 import export_int8

METADATA: tuple[str, ...] = ("domain", "class_names", "image_size", "backbone", "versions")
VARIANTS = {
    "own parts": {"num_layers": 2},
    "unshared, one image channel": {
        "num_layers": 2, "num_templates": 2, "signature": (1, 0), "image_channels": 1,
    },
}  # fmt: skip
formats = pytest.mark.parametrize("ending", FORMATS)


def backbone_of(network: CompositionalNetwork) -> Backbone:
    return Backbone(network, ("cat", "dog", "café"), {})


def read(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    """An exported file as its users read it: from pixels to probabilities, and its metadata."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (pixels,), (output,) = session.get_inputs(), session.get_outputs()
        assert (pixels.name, output.name) == ("pixels", "probabilities")
        assert (pixels.shape[0], output.shape[0]) == ("batch", "batch")
        metadata = session.get_modelmeta().custom_metadata_map
        return lambda x: torch.from_numpy(session.run(None, {"pixels": x.numpy()})[0]), metadata
    metadata = dict.fromkeys(METADATA, "")
    return torch.export.load(path, extra_files=metadata).module(), metadata


def uint8_images(config: Shape, count: int) -> NDArray[np.uint8]:
    colours = () if config.image_channels == 1 else (config.image_channels,)
    shape = (count, config.image_size, config.image_size, *colours)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


@dataclass
class Exported:
    """A backbone, and its domain b in a file."""

    backbone: Backbone
    path: Path
    difference: float

    def check(self) -> None:
        """The file gives what the network gives, of any number of images."""
        network = self.backbone.network
        run, _ = read(self.path)
        for count in (1, 2, 7):
            batch = to_pixels(uint8_images(network.config, count))
            expected = probabilities(network(batch, network.domains["b"]))
            torch.testing.assert_close(run(batch), expected, rtol=0, atol=1e-4)


def make_exported(make_network, variant: str, path: Path) -> Exported:
    network, other = (make_network(seed=seed, **VARIANTS[variant]) for seed in (0, 1))
    domain = network.domains["b"]
    if variant == "own parts":
        domain.input_adapter, domain.heads = other.input_adapter, other.heads
    before = {name: value.clone() for name, value in network.state_dict().items()}
    backbone = backbone_of(network)
    difference = export(backbone, domain, path)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return Exported(backbone, path, difference)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, make_network, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("exported") / "new" / f"b{request.param}"
    return make_exported(make_network, "own parts", path)


def test_a_file_turns_pixels_into_the_mixed_network_s_probabilities(exported: Exported) -> None:
    assert 0 <= exported.difference <= 1e-4
    exported.check()


@formats
def test_an_ordinary_network_of_one_image_channel_is_exported(
    make_network, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"b{ending}"
    make_exported(make_network, "unshared, one image channel", path).check()


def test_a_file_says_what_it_is_and_nothing_of_this_machine(exported: Exported) -> None:
    backbone, path = exported.backbone, exported.path
    _, metadata = read(path)
    assert set(metadata) == set(METADATA)
    assert metadata["domain"] == "b" and metadata["image_size"] == "8"
    assert metadata["backbone"] == backbone.fingerprint
    assert tuple(json.loads(metadata["class_names"])) == backbone.class_names
    assert json.loads(metadata["versions"])["torch"] == torch.__version__
    assert str(Path(da_compose.__file__).parents[1]).encode() not in path.read_bytes()
    if path.suffix == ".pt2":  # no pickle
        with zipfile.ZipFile(path) as archive:
            held = [archive.read(name) for name in archive.namelist()]
        assert not [data for data in held if data.startswith((b"\x80\x02", b"PK\x03\x04"))]


def test_a_file_that_differs_from_pytorch_is_not_kept(
    make_network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = make_network(num_layers=1), tmp_path / "a.ONNX"
    path.write_text("kept")
    monkeypatch.setattr("da_compose.storage.export.TOLERANCE", -1.0)
    with pytest.raises(ValueError, match=r"a\.\w+ is not written: on 1 random images.*\(1, 3\)"):
        export(backbone_of(network), network.domains["a"], path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda x: torch.full((len(x), 3), float("nan")), "by nan"),
        (lambda x: torch.full((1, 3), 1 / 3), "by inf"),
        (lambda x: torch.full((len(x), 3), 1 / 3 + 1e-3), "by 1.0e-03"),
    ],
    ids=["NaN", "batch built in", "other numbers"],
)
def test_the_check_says_what_differs(wrong: Callable[[Tensor], Tensor], expected: str) -> None:
    def right(pixels: Tensor) -> Tensor:
        return torch.full((len(pixels), 3), 1 / 3)

    with pytest.raises(ValueError, match=expected):
        _largest_difference(right, wrong, (3, 8, 8), Path("a.pt2"))


def test_a_full_disk_leaves_nothing(
    make_network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:9])
        raise OSError("No space left on device")

    network = make_network(num_layers=1)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        export(backbone_of(network), network.domains["a"], tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_another_ending_is_refused(make_network, tmp_path: Path) -> None:
    network = make_network(num_layers=1)
    with pytest.raises(ValueError, match=r"a\.pth must end in \.onnx or \.pt2"):
        export(backbone_of(network), network.domains["a"], tmp_path / "a.pth")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs {package}: pip install 'da-compose\[export\]'"):
        check_format(Path("a.onnx"))
    check_format(Path("a.pt2"))


def test_a_program_of_another_precision_is_refused(
    make_network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, traced = make_network(num_layers=1), torch.export.export

    def in_bfloat16(*arguments: Any, **options: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return traced(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", in_bfloat16)
    with pytest.raises(ValueError, match=r"would compute in torch.bfloat16, expected float32"):
        export(backbone_of(network), network.domains["b"], tmp_path / "b.pt2")
    assert not [*tmp_path.iterdir()]


def test_a_file_of_8_bit_integers_is_the_same_classifier_a_little_less_exact(
    make_network, tmp_path: Path
) -> None:
    network, path = make_network(seed=0, num_layers=2), tmp_path / "b.onnx"
    images = uint8_images(network.config, 40)
    kept = export_int8(backbone_of(network), network.domains["b"], path, images)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    run, metadata = read(path)
    assert set(metadata) >= set(METADATA)
    pixels = to_pixels(images)
    expected = probabilities(network(pixels, network.domains["b"]))
    found = run(pixels)
    assert 0 < (found - expected).abs().max() < 0.1  # quantized, and near
    assert kept == (found.argmax(1) == expected.argmax(1)).double().mean() > 0.8
    assert str(Path(da_compose.__file__).parents[1]).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [("b.pt2", 40, r"b\.pt2 must end in \.onnx"), ("b.onnx", 9, "at least 10 .* got 9")],
)
def test_8_bit_integers_are_written_as_onnx_of_enough_images(
    make_network, tmp_path: Path, name: str, count: int, expected: str
) -> None:
    network = make_network(num_layers=1)
    images = uint8_images(network.config, count)
    with pytest.raises(ValueError, match=expected):
        export_int8(backbone_of(network), network.domains["b"], tmp_path / name, images)
    assert not [*tmp_path.iterdir()]
