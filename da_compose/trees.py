"""Labelled picture files: folders "class / picture", list files "path label", and subsets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from da_compose.pictures import PICTURES, visible_files


@dataclass(frozen=True)
class LabelledPictures:
    """Picture files of one split of one domain, and the class of each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(
                f"expected one label a picture, got {len(self.paths)} pictures and "
                f"{len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.paths)


def read_tree(
    folder: Path, class_names: Sequence[str] | None = None
) -> tuple[LabelledPictures, tuple[str, ...]]:
    """All files in "class / picture" folders, at any depth below a class, and the class names.

    class_names: order of the labels, by default that of the sorted folders. A class may lack a
    folder; a folder of no class, or a picture beside the folders, raises ValueError. Files that
    are no pictures are listed too, so that whoever reads them can say so.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}, expected one with a folder a class")
    beside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = {path.name: path for path in beside if path.is_dir()}
    loose = [path for path in beside if path.name not in found and path.suffix.lower() in PICTURES]
    if loose:
        raise ValueError(
            f"{folder} holds {len(loose)} pictures of no class, such as {loose[0].name}; "
            "expected a folder a class: move each picture into one"
        )
    names = tuple(found if class_names is None else class_names)
    if len(set(names)) < len(names):
        raise ValueError(f"class names must differ, got {', '.join(names)}")
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(
            f"{folder} holds folders of no class: {', '.join(unknown)}; the classes are "
            f"{', '.join(names)}. Remove or rename these folders, or name them as classes"
        )
    files = {name: visible_files(place) for name, place in found.items()}
    pairs = [(path, label) for label, name in enumerate(names) for path in files.get(name, ())]
    if not pairs:
        raise ValueError(f"{folder} holds no files in folders of classes; expected class/picture")
    return _labelled(pairs), names


def read_list(file: Path, root: Path) -> LabelledPictures:
    """Pictures below `root` from lines "path label", as in DomainNet's official lists.

    A path may contain spaces. Whether the pictures exist is not looked at. ValueError with the
    line's number where a line is none.
    """
    pairs = []
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            path, label = ("", *line.strip().rsplit(maxsplit=1))[-2:]
            if not (path and label.isascii() and label.isdigit()):
                raise ValueError(
                    f'{file}, line {number}: expected "path label" with a label of digits, '
                    f"got {line.strip()!r}"
                )
            pairs.append((root / path, int(label)))
    if not pairs:
        raise ValueError(f'{file} lists no pictures; expected lines "path label"')
    return _labelled(pairs)


def split(
    pictures: LabelledPictures, test_fraction: float, seed: int
) -> tuple[LabelledPictures, LabelledPictures]:
    """Seeded training and test split, each class by itself: other classes do not change it.

    A class of two or more pictures is in both; the order of listing does not matter.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"expected a test fraction between 0 and 1, got {test_fraction}")
    train, test = [], []
    for shuffled in _shuffled_classes(pictures, seed):
        count = round(test_fraction * len(shuffled))
        count = min(max(count, 1), len(shuffled) - 1)
        test += shuffled[:count]
        train += shuffled[count:]
    return _labelled(_sorted(train)), _labelled(_sorted(test))


def of_classes(pictures: LabelledPictures, keep: Sequence[int]) -> LabelledPictures:
    """Pictures of some classes, which become 0, 1, ... in the order of `keep`.

    A negative label keeps the place of a class that these pictures lack.
    """
    known = [label for label in keep if label >= 0]
    if len(set(known)) < len(known):
        raise ValueError(f"classes to keep must differ, got {', '.join(map(str, keep))}")
    new = {label: position for position, label in enumerate(keep)}
    pairs = zip(pictures.paths, pictures.labels, strict=True)
    kept = [(path, new[label]) for path, label in pairs if label in new]
    if not kept:
        raise ValueError(f"no picture is of the classes {', '.join(map(str, keep))}")
    return _labelled(kept)


def at_most(pictures: LabelledPictures, per_class: int, seed: int) -> LabelledPictures:
    """Seeded subset with no more than `per_class` pictures a class; a larger one contains it."""
    if per_class < 1:
        raise ValueError(f"expected at least 1 picture a class, got {per_class}")
    classes = _shuffled_classes(pictures, seed)
    return _labelled(_sorted(pair for shuffled in classes for pair in shuffled[:per_class]))


def _labelled(pairs: Iterable[tuple[Path, int]]) -> LabelledPictures:
    listed = list(pairs)
    return LabelledPictures(tuple(p for p, _ in listed), tuple(label for _, label in listed))


def _sorted(pairs: Iterable[tuple[Path, int]]) -> list[tuple[Path, int]]:
    return sorted(pairs, key=lambda pair: (str(pair[0]), pair[1]))  # paths compare slowly


def _shuffled_classes(pictures: LabelledPictures, seed: int) -> list[list[tuple[Path, int]]]:
    """(path, label) of every class, in an order that depends on the seed and its paths alone."""
    classes: dict[int, list[tuple[Path, int]]] = {}
    for path, label in _sorted(zip(pictures.paths, pictures.labels, strict=True)):
        classes.setdefault(label, []).append((path, label))
    return [
        [pairs[position] for position in np.random.default_rng(seed).permutation(len(pairs))]
        for _, pairs in sorted(classes.items())
    ]
