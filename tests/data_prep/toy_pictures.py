"""A domain of a few random pictures, and who reads them."""

import csv
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from da_compose.pictures import read_all
from da_compose.trees import LabelledPictures, read_tree, split
from data_prep import PreparedDomain, picture_cache
from data_prep.picture_cache import prepare_pictures

SIZE = 8


def listed(folder: Path) -> tuple[LabelledPictures, LabelledPictures]:
    return split(read_tree(folder)[0], 0.2, seed=0)


def prepare_here(folder: Path, cache: Path, **options) -> PreparedDomain:
    train, test = listed(folder)
    options = {"num_classes": 2, "origin": "files", "size": SIZE} | options
    return prepare_pictures("toy", train, test, cache=cache, **options)


def rows(domain: PreparedDomain) -> list[tuple[str, ...]]:
    assert domain.problems is not None
    with domain.problems.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = map(tuple, csv.reader(file))
    assert header == ("path", "split", "reason")
    return rows


def assert_same(one: PreparedDomain, other: PreparedDomain) -> None:
    assert one.fingerprint == other.fingerprint
    for name in ("train", "test"):
        for mine, theirs in zip(
            *(vars(getattr(d, name)).values() for d in (one, other)), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


def count_reads(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[Path]:
    """Paths that are read from now on; an interruption in the place of the next after so many."""
    read: list[Path] = []

    def counted(paths, size):
        for path, found in zip(paths, read_all(paths, size), strict=True):
            if len(read) == stop_at:
                raise KeyboardInterrupt
            read.append(path)
            yield found

    monkeypatch.setattr(picture_cache, "read_all", counted)
    return read


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
