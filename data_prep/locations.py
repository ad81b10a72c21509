"""Where the files of a data set are: the user's root, the project's `data/`, the cache's folder.

A root holds `digits/` and `tasks/`, with `<name>.npz` or the publisher's own files in `<name>/`,
and `pictures/`, with a folder a data set. Downloads of digits and letters go through torchvision,
which knows the checksums, into `downloads/` of the cache's folder.
"""

import contextlib
import io
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from da_compose.storage.locks import lock
from data_prep.caches import cache_folder, project_data
from data_prep.prepare import Origin, file_identity
from data_prep.readers import RawDomain, RawSplit, read_idx_pair, read_npz, read_svhn, read_usps

DATA_VARIABLE = "DA_COMPOSE_DATA"
OFFLINE_VARIABLE = "DA_COMPOSE_OFFLINE"
NETWORK_TIMEOUT = 5.0  # seconds without an answer
DOWNLOAD_ATTEMPTS = 3


class DomainUnavailable(FileNotFoundError):
    """Known data that is nowhere to be had."""


class Location(NamedTuple):
    """One data set at hand: how to read it, and in JSON values what the content depends on."""

    origin: Origin
    identity: Mapping[str, object]
    read: Callable[[], RawDomain]


class Publisher(NamedTuple):
    """The file names of a publisher, a reader of these files, and torchvision's way to get them."""

    files: tuple[str, ...]
    read: Callable[..., RawDomain]
    download: Callable[[Path], None]


def chosen_root(data_root: Path | None) -> Path | None:
    """The root the user names, as an argument or in the environment; it must exist."""
    named = data_root or os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            "expected a data root with digits/, tasks/ or pictures/ inside, found no folder "
            f"{root}; correct the path, or leave it and {DATA_VARIABLE} out to use other data"
        )
    return root


def data_folders(kind: str, data_root: Path | None) -> list[Path]:
    """Folders searched for files of a kind, such as `pictures/pacs`, first to last."""
    root = chosen_root(data_root)
    roots = [*([] if root is None else [root]), project_data(), cache_folder()]
    return [root / kind for root in dict.fromkeys(roots)]


def digit_folders(data_root: Path | None) -> list[Path]:
    """Folders searched for digits, first to last."""
    return data_folders("digits", data_root)


def locate(
    name: str, folders: Sequence[Path], allow_download: bool, bundled: Location | None = None
) -> Location:
    """The first place that has the data set complete: files, a download, what a package bundles.

    Raises `DomainUnavailable` where there is none.
    """
    for folder in folders:
        if location := _look(name, folder, "files"):
            return location
    downloads = cache_folder() / "downloads"
    if location := _look(name, downloads, "download"):
        return location
    if allow_download and name in PUBLISHERS and download(name, downloads / name):
        location = _look(name, downloads, "download")
    if location := location or bundled:
        return location
    files = " or ".join([f"{name}.npz", *([f"{name}/"] if name in PUBLISHERS else [])])
    raise DomainUnavailable(
        f"{name} is not available: expected {files} in {', '.join(map(str, folders))}, found "
        "neither files nor a download; put the files there, or name a data root by argument or "
        f"{DATA_VARIABLE}"
    )


def download(name: str, folder: Path) -> bool:
    """Fetch a publisher's files into a new folder; False, quickly, where there is no network.

    Files come into a folder beside it, which takes its place when it is complete. After an
    interruption the files that came whole, by torchvision's checksums, are not fetched again.
    """
    global _network_missing
    if _network_missing or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"):
        return False
    publisher = PUBLISHERS[name]
    unfinished = folder.with_name(f".{name}-unfinished")
    with alone_in(unfinished):
        if folder.exists():  # another process was first
            return True
        before = _files_below(unfinished)
        if not _fetch(publisher, unfinished):
            _network_missing = _files_below(unfinished) == before
            if not _files_below(unfinished):
                shutil.rmtree(unfinished)
            return False
        complete = unfinished / "complete"
        complete.mkdir(exist_ok=True)
        found = {path.name: path for path in _files_below(unfinished)}
        for file in publisher.files:
            came = found[file if file in found else file.removesuffix(".gz")]
            came.replace(complete / came.name)
        complete.replace(folder)
        shutil.rmtree(unfinished)
        return True


_network_missing = False  # one look at the network is enough for a process


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it against other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor)
        folder.mkdir(exist_ok=True)  # the process before may have removed it
        yield
    finally:
        os.close(descriptor)


def _fetch(publisher: Publisher, folder: Path) -> bool:
    """Whether all files came; tried again only where something came, so there is a network."""
    for _ in range(DOWNLOAD_ATTEMPTS):
        before = _files_below(folder)
        try:
            with _timeout(NETWORK_TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
                publisher.download(folder)
            return True
        except (OSError, RuntimeError, EOFError, ValueError):
            if _files_below(folder) == before:
                return False
    return False


def _files_below(folder: Path) -> dict[Path, int]:
    """Files that are not empty, and when each was written."""
    states = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: state.st_mtime_ns for path, state in states.items() if state.st_size}


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _look(name: str, folder: Path, origin: Origin) -> Location | None:
    packed = folder / f"{name}.npz"
    if packed.is_file():
        return Location(origin, {"files": file_identity(packed)}, lambda: read_npz(packed))
    if publisher := PUBLISHERS.get(name):
        found = [_plain_or_packed(folder / name / file) for file in publisher.files]
        files = tuple(file for file in found if file is not None)
        if len(files) == len(found):
            identity = {"files": file_identity(*files)}
            return Location(origin, identity, lambda: publisher.read(*files))
    return None


def _plain_or_packed(path: Path) -> Path | None:
    """The file itself or, for a `.gz`, its unpacked twin."""
    twins = (path, path.with_suffix("")) if path.suffix == ".gz" else (path,)
    return next((twin for twin in twins if twin.is_file()), None)


def _read_mnist(train: Path, train_labels: Path, test: Path, test_labels: Path) -> RawDomain:
    return RawDomain(read_idx_pair(train, train_labels), read_idx_pair(test, test_labels))


def _read_letters(*files: Path) -> RawDomain:
    """EMNIST's letters, labelled 1..26 and with rows and columns exchanged in the files."""
    return RawDomain(
        *(RawSplit(images.swapaxes(1, 2), labels - 1) for images, labels in _read_mnist(*files))
    )


def _read_svhn(train: Path, test: Path) -> RawDomain:
    return RawDomain(read_svhn(train), read_svhn(test))


def _read_usps(train: Path, test: Path) -> RawDomain:
    return RawDomain(read_usps(train), read_usps(test))


def _download_mnist(folder: Path) -> None:
    from torchvision import datasets

    datasets.MNIST(str(folder), download=True)


def _download_kmnist(folder: Path) -> None:
    from torchvision import datasets

    datasets.KMNIST(str(folder), download=True)


def _download_letters(folder: Path) -> None:
    """The archive of all of EMNIST, of which torchvision keeps the unpacked files."""
    from torchvision import datasets

    for unpacked in folder.rglob("*-ubyte"):
        unpacked.unlink()  # perhaps in part; only the archive has a checksum
    datasets.EMNIST(str(folder), split="letters", download=True)


def _download_svhn(folder: Path) -> None:
    from torchvision import datasets

    for split in ("train", "test"):
        datasets.SVHN(str(folder), split=split, download=True)


def _download_usps(folder: Path) -> None:
    from torchvision import datasets

    for train in (True, False):
        datasets.USPS(str(folder), train=train, download=True)


def _idx_files(train: str, test: str) -> tuple[str, ...]:
    return tuple(
        f"{split}-{kind}-ubyte.gz"
        for split in (train, test)
        for kind in ("images-idx3", "labels-idx1")
    )


PUBLISHERS = {
    "mnist": Publisher(_idx_files("train", "t10k"), _read_mnist, _download_mnist),
    "kmnist": Publisher(_idx_files("train", "t10k"), _read_mnist, _download_kmnist),
    "emnist_letters": Publisher(
        _idx_files("emnist-letters-train", "emnist-letters-test"),
        _read_letters,
        _download_letters,
    ),
    "svhn": Publisher(("train_32x32.mat", "test_32x32.mat"), _read_svhn, _download_svhn),
    "usps": Publisher(("usps.bz2", "usps.t.bz2"), _read_usps, _download_usps),
}
