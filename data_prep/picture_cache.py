"""Labelled picture files become a prepared domain: decoded once, in threads, straight to a file.

While it is made, a domain lies in `<cache>/<name>-<key>/unfinished/`: the pictures of each split,
one after the other, and how far it is. An interrupted call goes on from there. The key covers
place, size and time of change of every picture, so a changed one gives another folder.
"""

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from da_compose.images import ImageSet
from da_compose.pictures import BrokenPicture, read_all
from da_compose.progress import phase
from da_compose.storage.files import replacing
from da_compose.trees import LabelledPictures
from data_prep.alone import alone_in
from data_prep.prepare import (
    PROBLEMS,
    UNFINISHED,
    Origin,
    PreparedDomain,
    explained,
    key_of,
    open_prepared,
    publish,
    save_array,
    swept,
)

VERSION = 2  # of the preparation; raise it when the same pictures would give other bytes
KEPT_EVERY = 1_000  # pictures, of which an interruption costs at most so many


def prepare_pictures(
    name: str,
    train: LabelledPictures,
    test: LabelledPictures,
    *,
    num_classes: int,
    origin: Origin,
    cache: Path,
    size: int,
    identity: Mapping[str, object] | None = None,
) -> PreparedDomain:
    """The domain from the cache, or decoded from its picture files to uint8 (N, S, S, 3).

    identity: whatever else the content depends on, in JSON values. A picture that cannot be read
    is left out, a duplicate (a file of the same bytes) is kept; `notes` count them, `problems`
    lists them. ValueError where a split has no readable picture, OSError where the cache cannot be
    written: what is finished by then is kept, and the next call goes on.
    """
    if size < 1:
        raise ValueError(f"expected an image size of at least 1 pixel, got {size}; 64 is usual")
    splits = {"train": train, "test": test}
    for split, pictures in splits.items():
        _check(pictures, num_classes, f"{name}, {split}")

    parts = {"version": VERSION, "size": size, "num_classes": num_classes, "origin": origin}
    state = _state(splits)
    folder = cache / f"{name}-{key_of(parts, dict(identity or {}), state)}"
    prepared = open_prepared(folder)
    if prepared is not None:
        return swept(prepared, folder)
    with alone_in(folder), explained(folder):
        prepared = open_prepared(folder)  # by another process in the meantime
        if prepared is not None:
            return prepared
        unfinished = folder / UNFINISHED
        unfinished.mkdir(exist_ok=True)
        with phase(f"preparing {name}", sum(map(len, splits.values()))) as preparing:
            broken = {
                split: _decode(unfinished, split, pictures.paths, size, preparing.advance)
                for split, pictures in splits.items()
            }
        try:
            if _state(splits) != state:
                raise ValueError(f"{name}: pictures changed while they were read; run it again")
            content = {
                split: _labelled(unfinished, split, pictures, broken[split], name)
                for split, pictures in splits.items()
            }
        except ValueError:
            shutil.rmtree(unfinished)
            raise
        notes = _report(unfinished / PROBLEMS, splits, broken)
        about = {"name": name, "origin": origin, "num_classes": num_classes, "notes": notes}
        prepared = publish(unfinished, folder, content, **about)
    return swept(prepared, folder)


def _check(pictures: LabelledPictures, num_classes: int, where: str) -> None:
    if not len(pictures):
        raise ValueError(f"{where}: expected at least one picture, got none")
    if not 0 <= min(pictures.labels) <= max(pictures.labels) < num_classes:
        raise ValueError(
            f"{where}: expected labels in 0..{num_classes - 1}, got {min(pictures.labels)}.."
            f"{max(pictures.labels)}; are these the labels of this data set?"
        )


def _state(splits: Mapping[str, LabelledPictures]) -> str:
    """Digest of each picture's path below the folder of all, label, bytes and time of change.

    Of one that cannot be read neither bytes nor time, so that it is noticed when it can be.
    """
    parents = {path.parent.absolute() for pictures in splits.values() for path in pictures.paths}
    root = Path(os.path.commonpath(parents))
    digest = hashlib.sha256()
    for split, pictures in splits.items():
        for path, label in zip(pictures.paths, pictures.labels, strict=True):
            entry = [split, str(path.absolute().relative_to(root)), label]
            if os.access(path, os.R_OK):
                found = path.stat()
                entry += [found.st_size, found.st_mtime_ns]
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _decode(
    folder: Path, split: str, paths: Sequence[Path], size: int, advance: Callable[[int], None]
) -> dict[int, str]:
    """Write all pictures of a split to `<split>_images.npy`: positions left out, and why.

    Goes on after the pictures that an interrupted call has finished. What is written is always
    behind what was, so the file grows and memory does not.
    """
    finished = folder / f"{split}.json"
    images = folder / f"{split}_images.npy"
    images.touch()
    done, broken = _read_finished(finished)
    with images.open("r+b") as file:
        header = _write_header(file, 0, size)
        end = header + (done - len(broken)) * size * size * 3
        if images.stat().st_size < end:  # lost, as by a loss of power
            done, broken, end = 0, {}, header
        file.truncate(end)
        file.seek(end)
        advance(done)
        for start in range(done, len(paths), KEPT_EVERY):
            some = paths[start : start + KEPT_EVERY]
            for position, found in enumerate(read_all(some, size), start):
                if isinstance(found, BrokenPicture):
                    broken[position] = found.reason
                else:
                    file.write(found.data)
                advance(1)
            file.flush()
            os.fsync(file.fileno())
            with replacing(finished) as temporary:
                temporary.write_text(json.dumps([start + len(some), list(broken.items())]))
        _write_header(file, len(paths) - len(broken), size)
    return broken


def _read_finished(file: Path) -> tuple[int, dict[int, str]]:
    """How many pictures are done, and which of them are left out."""
    try:
        done, broken = json.loads(file.read_text())
        return done, dict(broken)
    except (OSError, ValueError, TypeError):
        return 0, {}


def _write_header(file: BinaryIO, num_images: int, size: int) -> int:
    """Header of an .npy file of uint8 (N, S, S, 3), as long for every N; its length."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (num_images, size, size, 3)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, about)
    return file.tell()


def _labelled(
    folder: Path, split: str, pictures: LabelledPictures, broken: Mapping[int, str], name: str
) -> ImageSet:
    """Save labels beside the decoded pictures; both of them memory-mapped."""
    if len(broken) == len(pictures):
        first = next(iter(broken))
        raise ValueError(
            f"{name}, {split}: none of {len(pictures):,} pictures could be read; "
            f"the first: {pictures.paths[first]}: {broken[first]}"
        )
    labels = [label for at, label in enumerate(pictures.labels) if at not in broken]
    save_array(folder / f"{split}_labels.npy", np.array(labels, dtype=np.int64))
    arrays = (
        np.load(folder / f"{split}_{kind}.npy", mmap_mode="r") for kind in ("images", "labels")
    )
    return ImageSet(*arrays)


def _report(
    file: Path, splits: Mapping[str, LabelledPictures], broken: Mapping[str, Mapping[int, str]]
) -> list[str]:
    """Write all problems to a CSV file where there are any; notes that count them."""
    left_out = [
        (splits[split].paths[position], split, reason)
        for split in splits
        for position, reason in broken[split].items()
    ]
    kept = [
        (path, split)
        for split, pictures in splits.items()
        for position, path in enumerate(pictures.paths)
        if position not in broken[split]
    ]
    duplicates = list(_duplicates(kept))
    if not left_out and not duplicates:
        return []
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as lines:
        writer = csv.writer(lines)  # lines end as RFC 4180 says, so that "\r" in a name is quoted
        writer.writerow(("path", "split", "reason"))
        writer.writerows(left_out)
        writer.writerows(
            (path, split, f"duplicate of {first} ({first_split}); kept")
            for path, split, first, first_split in duplicates
        )
    total = sum(map(len, splits.values()))
    across = sum(split != first_split for _, split, _, first_split in duplicates)
    notes = []
    if left_out:
        notes.append(f"{len(left_out):,} of {total:,} pictures left out, listed in {PROBLEMS}")
    if duplicates:
        also = f", {across:,} of them in test of pictures in train" if across else ""
        notes.append(f"{len(duplicates):,} duplicates kept{also}, listed in {PROBLEMS}")
    return notes


def _duplicates(kept: Sequence[tuple[Path, str]]) -> Iterator[tuple[Path, str, Path, str]]:
    """Path and split of every file with the bytes of an earlier one, and those of the first."""
    sizes = [path.stat().st_size for path, _ in kept]
    times = Counter(sizes)
    first: dict[bytes, tuple[Path, str]] = {}
    for (path, split), size in zip(kept, sizes, strict=True):
        if times[size] > 1:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if digest in first:
                yield path, split, *first[digest]
            else:
                first[digest] = (path, split)
