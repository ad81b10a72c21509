"""Prepared domains: square uint8 images and labels, memory-mapped `.npy` with a fingerprint.

A domain is prepared once into `<cache>/<name>-<key>/`. The key covers everything the content
depends on, so a changed source file, size or severity gives another folder. Each file is written
to `unfinished/` there and moved when it is whole, the JSON last, by one process at a time.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from da_compose.images import ImageSet, resize
from da_compose.storage.schema import (
    FINGERPRINT,
    TEXT,
    Field,
    check_metadata,
    one_of,
    parse,
    whole,
)
from data_prep.alone import alone_in
from data_prep.readers import RawDomain, RawSplit, checked_split

Origin = Literal["files", "download", "bundled"]

VERSION = 1  # of the preparation; raise it when the same source would give other bytes
SUMMARY = "domain.json"
PROBLEMS = "problems.csv"
UNFINISHED = "unfinished"
ARRAYS = {f"{split}_{kind}" for split in ("train", "test") for kind in ("images", "labels")}
SCHEMA = {
    "name": TEXT,
    "origin": one_of("files", "download", "bundled"),
    "num_classes": whole(1),
    "fingerprint": FINGERPRINT,
    "notes": Field("lines", lambda v: isinstance(v, list) and all(isinstance(n, str) for n in v)),
    "arrays": Field(
        "each array's type and shape", lambda v: isinstance(v, dict) and {*v} == ARRAYS
    ),
}


@dataclass(frozen=True, kw_only=True)
class PreparedDomain:
    """One domain, ready for training; `fingerprint` identifies its images and labels.

    Its arrays are memory-mapped copy-on-write: a change stays in memory and never reaches a file.
    """

    name: str
    origin: Origin
    train: ImageSet
    test: ImageSet
    fingerprint: str
    num_classes: int
    notes: tuple[str, ...] = ()  # what a reader of results should know, such as absent classes
    problems: Path | None = None  # a CSV file of pictures left out, and of duplicates


def prepare(
    name: str,
    read: Callable[[], RawDomain],
    *,
    origin: Origin,
    identity: Mapping[str, object],
    cache: Path,
    size: int = 32,
    num_classes: int = 10,
) -> PreparedDomain:
    """The domain from the cache, or from `read()` where the cache lacks it or is damaged.

    `identity` says in JSON values what `read()` depends on: files, severity, seed.
    """
    if size < 1:
        raise ValueError(f"expected an image size of at least 1 pixel, got {size}; 32 is usual")
    parts = {"version": VERSION, "size": size, "num_classes": num_classes, "origin": origin}
    folder = cache / f"{name}-{key_of(parts, identity)}"
    prepared = open_prepared(folder)
    if prepared is None:
        raw = read()
        splits = {"train": raw.train, "test": raw.test}
        resized = {
            split: _checked_resize(content, size, num_classes, f"{name}, {split}")
            for split, content in splits.items()
        }
        with alone_in(folder), explained(folder):
            prepared = open_prepared(folder)  # by another process in the meantime
            if prepared is None:
                prepared = _write(folder, name, origin, resized, num_classes)
    return swept(prepared, folder)


def key_of(*parts: object) -> str:
    """Short name for JSON values, the same for equal ones."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def file_identity(*files: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of each file: enough to notice that one was replaced."""
    states = [(file.name, file.stat()) for file in files]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]


def _checked_resize(raw: RawSplit, size: int, num_classes: int, where: str) -> ImageSet:
    images, labels = checked_split(raw, where)
    if labels.max() >= num_classes:
        raise ValueError(
            f"{where}: expected labels below {num_classes}, got {labels.max()}; "
            "are these the labels of this data set?"
        )
    return ImageSet(images=resize(images, size), labels=labels.astype(np.int64))


def _write(
    folder: Path, name: str, origin: Origin, splits: Mapping[str, ImageSet], num_classes: int
) -> PreparedDomain:
    unfinished = folder / UNFINISHED
    unfinished.mkdir(exist_ok=True)
    try:
        for split, content in splits.items():
            for kind, array in (("images", content.images), ("labels", content.labels)):
                save_array(unfinished / f"{split}_{kind}.npy", array)
        return publish(
            unfinished, folder, splits, name=name, origin=origin, num_classes=num_classes
        )
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an `.npy` file; numpy's own way to write it does not say why a disk takes no more."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)


def swept(prepared: PreparedDomain, folder: Path) -> PreparedDomain:
    """The domain, without what lay beside it while it was made, also by a killed process."""
    if (folder / UNFINISHED).exists():
        with alone_in(folder):
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return prepared


def publish(
    temporary: Path,
    folder: Path,
    splits: Mapping[str, ImageSet],
    *,
    name: str,
    origin: Origin,
    num_classes: int,
    notes: Sequence[str] = (),
) -> PreparedDomain:
    """Move what lies in `temporary` into the folder, the summary last, and open it there.

    That is the arrays of `splits`, already saved as `<split>_images.npy` and `<split>_labels.npy`,
    and perhaps a list of problems.
    """
    digest = hashlib.sha256()
    arrays = {}
    for split, content in splits.items():
        for kind, array in (("images", content.images), ("labels", content.labels)):
            arrays[f"{split}_{kind}"] = [array.dtype.str, *array.shape]
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    absent = [note for split in splits for note in _absent(split, splits[split], num_classes)]
    summary = {
        "name": name,
        "origin": origin,
        "num_classes": num_classes,
        "fingerprint": digest.hexdigest()[:16],
        "notes": [*absent, *notes],
        "arrays": arrays,
    }
    (temporary / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    problems = [PROBLEMS] if (temporary / PROBLEMS).is_file() else []
    for file in (*(f"{key}.npy" for key in arrays), *problems, SUMMARY):
        (temporary / file).replace(folder / file)
    prepared = open_prepared(folder)
    if prepared is None:
        raise OSError(f"{folder} cannot be read back after writing; is the disk full or shared?")
    return prepared


def open_prepared(folder: Path) -> PreparedDomain | None:
    """The domain in the folder; None where there is none or its files are not as summarized."""
    try:
        summary = parse((folder / SUMMARY).read_text())
        check_metadata(summary, SCHEMA)
        arrays = {}
        for key, (dtype, *shape) in summary["arrays"].items():
            arrays[key] = array = np.load(folder / f"{key}.npy", mmap_mode="c")
            if [array.dtype.str, *array.shape] != [dtype, *shape]:
                return None
        labels = [arrays[f"{split}_labels"] for split in ("train", "test")]
        if not all(0 <= part.min() <= part.max() < summary["num_classes"] for part in labels):
            return None
        return PreparedDomain(
            name=summary["name"],
            origin=summary["origin"],
            train=ImageSet(images=arrays["train_images"], labels=arrays["train_labels"]),
            test=ImageSet(images=arrays["test_images"], labels=arrays["test_labels"]),
            fingerprint=summary["fingerprint"],
            num_classes=summary["num_classes"],
            notes=tuple(summary["notes"]),
            problems=folder / PROBLEMS if (folder / PROBLEMS).is_file() else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def _absent(split: str, content: ImageSet, num_classes: int) -> list[str]:
    absent = sorted(set(range(num_classes)) - set(np.unique(content.labels).tolist()))
    return [f"{split} split lacks classes {', '.join(map(str, absent))}"] if absent else []


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """An OSError of the cache names it, and says what helps."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        what = (
            f"{error.strerror or error}; make room or choose another cache: what is finished stays"
        )
        raise OSError(error.errno or errno.EIO, what, str(folder)) from error
