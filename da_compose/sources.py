"""Labelled images of several sources, from whatever a user has, with one numbering of classes."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da_compose.archives import is_archive, read_array
from da_compose.folders import nearly_alike, one_spelling
from da_compose.images import ImageSet
from da_compose.items import labels_of
from da_compose.model.domain import check_name
from da_compose.reading import read_images, read_pictures
from da_compose.storage.schema import check_class_names
from da_compose.trees import read_tree

ACCEPTED = (
    "a folder <class>/<picture>, an .npz with images and labels, or a pair (images, labels) of "
    "images of any kind and one label each, a whole number or a name"
)
MOST_NUMBERED = 2**16  # classes that are named by their numbers


def read_sources(
    sources: Mapping[str, Any], size: int, class_names: Sequence[str] | None = None
) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """Images at size x size with labels of every source, and the names of the classes.

    sources: by name, each a folder <class>/<picture>, an `.npz` with `images` and `labels`, or a
    pair (images, labels). Labels are whole numbers, or names; a folder's are its folders' names.
    class_names: what numbers stand for, and the order of names; by default 0, 1, ... of numbers,
    and of names all that there are, sorted. Names beside numbers need it. Raises ValueError.
    """
    if not isinstance(sources, Mapping):
        raise ValueError(
            'expected sources by name, such as {"site-1": "scans/site-1"}; '
            f"got a {type(sources).__name__}"
        )
    for name in sources:
        check_name(name)  # before any is read
    if not sources:
        raise ValueError("pretraining needs at least one labelled source domain, got none")
    if class_names is not None:
        class_names = [one_spelling(name) for name in check_class_names(class_names)]
    found = {name: _read(name, source, size, class_names) for name, source in sources.items()}
    kinds = {labels.dtype.kind for _, labels in found.values()}
    if class_names is None and len(kinds) > 1:
        numbered = [name for name, (_, labels) in found.items() if labels.dtype.kind != "U"]
        raise ValueError(
            f"{', '.join(numbered)} has numbers as labels, other sources have names; say what the "
            "numbers stand for: class_names=[...], the name of class 0 first"
        )
    everything = np.concatenate([np.unique(labels) for _, labels in found.values()])
    if class_names is not None:
        names = tuple(class_names)
    elif kinds == {"U"}:
        names = tuple(sorted({str(name) for name in everything}))
    elif (highest := int(everything.max())) >= MOST_NUMBERED:
        raise ValueError(
            f"labels go up to {highest:,}, so they are no numbers of classes, 0, 1, ...; give them "
            "as texts, which are names"
        )
    else:
        names = tuple(map(str, range(highest + 1)))
    if len(names) < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {', '.join(names)}")
    check_class_names(names)
    sets = {
        name: ImageSet(images, _numbered(name, labels, names))
        for name, (images, labels) in found.items()
    }
    _say_doubts(sets, names)
    return sets, names


def _say_doubts(sets: Mapping[str, ImageSet], names: Sequence[str]) -> None:
    """Warn of classes that no source has, and of names that may mean the same."""
    held = {label for data in sets.values() for label in data.labels.tolist()}
    if empty := [name for number, name in enumerate(names) if number not in held]:
        warnings.warn(f"no source has images of the classes {', '.join(empty)}", stacklevel=4)
    for pair in nearly_alike(names):
        warnings.warn(f"{' and '.join(pair)} are read as different classes", stacklevel=4)


def _read(
    name: str, source: Any, size: int, class_names: Sequence[str] | None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Images and their labels, either whole numbers or names."""
    if isinstance(source, (str, Path)):
        if not str(source):  # as a path, the folder one is in
            raise ValueError(f"source {name!r} is an empty text, expected {ACCEPTED}")
        path = Path(source)
        if not is_archive(path):
            return _read_folder(path, size, class_names)
        source = path, read_array(path, "labels")
    if isinstance(source, ImageSet):
        source = source.images, source.labels
    if not isinstance(source, tuple) or len(source) != 2:
        raise ValueError(f"source {name!r} is a {type(source).__name__}, expected {ACCEPTED}")
    images, labels = read_images(source[0], size), labels_of(source[1])
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"labels of {name} must be whole numbers or names, one an image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.dtype.kind == "U":
        labels = np.array([one_spelling(label) for label in labels.tolist()])
    if len(images) != len(labels):
        raise ValueError(f"source {name!r} has {len(images)} images and {len(labels)} labels")
    return images, labels


def _read_folder(
    path: Path, size: int, class_names: Sequence[str] | None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    pictures, names = read_tree(path, class_names)
    images, kept = read_pictures(pictures.paths, size)
    name_of = {file: names[n] for file, n in zip(pictures.paths, pictures.labels, strict=True)}
    return images, np.array([name_of[file] for file in kept])


def _numbered(name: str, labels: NDArray[Any], names: Sequence[str]) -> NDArray[np.int64]:
    """Labels as places in `names`."""
    if labels.dtype.kind != "U":
        if not 0 <= labels.min() <= labels.max() < len(names):
            raise ValueError(
                f"labels of {name} must be in 0..{len(names) - 1}, one for each class name, "
                f"got {labels.min()}..{labels.max()}"
            )
        return labels.astype(np.int64)
    place = {word: number for number, word in enumerate(names)}
    if unknown := sorted({str(label) for label in labels} - place.keys()):
        raise ValueError(
            f"{name} has classes {', '.join(unknown)} that are not among class_names: "
            f"{', '.join(names)}"
        )
    return np.array([place[str(label)] for label in labels], dtype=np.int64)
