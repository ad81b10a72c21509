"""Small digit files in their publishers' formats, and a machine without data or network."""

import bz2
import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from data_prep import locations
from data_prep.caches import CACHE_VARIABLE
from data_prep.readers import RawDomain, RawSplit
from tests.pictures import make_pictures


def make_split(num_images: int, shape: tuple[int, ...], seed: int = 0) -> RawSplit:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (num_images, *shape), dtype=np.uint8)
    return RawSplit(images, (np.arange(num_images) % 10).astype(np.uint8))


def make_domain(shape: tuple[int, ...], num_train: int = 20, num_test: int = 10) -> RawDomain:
    return RawDomain(make_split(num_train, shape, seed=1), make_split(num_test, shape, seed=2))


def write_idx(path: Path, array: np.ndarray) -> None:
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content += array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, domain: RawDomain, suffix: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, split in (("train", domain.train), ("t10k", domain.test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", split.images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", split.labels)


def write_svhn(folder: Path, domain: RawDomain) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, split in (("train", domain.train), ("test", domain.test)):
        labels = np.where(split.labels == 0, 10, split.labels)[:, None]
        content = {"X": np.moveaxis(split.images, 0, -1), "y": labels}
        savemat(str(folder / f"{prefix}_32x32.mat"), content, do_compression=True)


def write_usps(folder: Path, domain: RawDomain) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("usps.bz2", domain.train), ("usps.t.bz2", domain.test)):
        lines = [
            f"{label + 1} " + " ".join(f"{i}:{v / 127.5 - 1:.6f}" for i, v in enumerate(row, 1))
            for label, row in zip(split.labels, split.images.reshape(-1, 256), strict=True)
        ]
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def write_npz(path: Path, domain: RawDomain) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{split}_{kind}": getattr(getattr(domain, split), kind)
        for split in ("train", "test")
        for kind in ("images", "labels")
    }
    np.savez(path, **arrays)


class DigitFiles:
    """Writers of digit files below a data root, and the content they wrote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mnist = make_domain((28, 28))
        self.svhn = make_domain((32, 32, 3))
        self.usps = make_domain((16, 16))
        self.meter = make_domain((24, 20, 3))
        self._writers: dict[str, Callable[[], None]] = {
            "mnist": lambda: write_mnist(root / "digits" / "mnist", self.mnist),
            "svhn": lambda: write_svhn(root / "digits" / "svhn", self.svhn),
            "usps": lambda: write_usps(root / "digits" / "usps", self.usps),
            "meter": lambda: write_npz(root / "digits" / "meter.npz", self.meter),
        }

    def write(self, *names: str) -> Path:
        (self.root / "digits").mkdir(parents=True, exist_ok=True)
        for name in names:
            self._writers[name]()
        return self.root


@pytest.fixture
def digit_files(tmp_path: Path) -> DigitFiles:
    return DigitFiles(tmp_path / "root")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data root, an empty project, no network."""
    monkeypatch.delenv(locations.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(locations.OFFLINE_VARIABLE, "1")
    monkeypatch.setattr(locations, "project_data", lambda: tmp_path / "project")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "project"))
    monkeypatch.setattr(locations, "_network_missing", False)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", good=20, broken_of_each_kind=1)
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A folder of 1,000 good pictures and 30 broken ones, and the broken."""
    folder = tmp_path_factory.mktemp("thousand") / "pictures"
    return folder, make_pictures(folder, good=1_000, broken_of_each_kind=3)
