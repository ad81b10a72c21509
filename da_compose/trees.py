"""Labelled picture files: folders "class / picture", list files "path label", and subsets."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from da_compose.folders import (
    any_picture,
    is_visible,
    one_spelling,
    visible_files,
    visible_folders,
)

AROUND = {"images", "image", "imgs", "img", "pictures", "jpegimages"}  # a folder of classes
SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


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
    folder; a folder of pictures of no class, a picture beside the folders, and folders of splits
    raise ValueError; one folder `images` around the classes is passed through. Files that are no
    pictures are listed too, so that whoever reads them can say so; a folder without any picture is
    no class.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}, expected one with a folder a class")
    folder, found = _classes(folder)
    if parts := _splits(folder, found):
        given = " or ".join(str(folder / name) for name in parts)
        raise ValueError(
            f"{folder} holds {' and '.join(parts)}, which are splits, not classes; give {given}"
        )
    beside = [path for path in folder.iterdir() if is_visible(path.name) and not path.is_dir()]
    if loose := sorted(path for path in beside if any_picture([path])):
        raise ValueError(
            f"{folder} holds {len(loose)} pictures of no class, such as {loose[0].name}; "
            "expected a folder a class: move each picture into one"
        )
    if class_names is None:
        _doubt(folder, found)
    names = tuple(found if class_names is None else class_names)
    if len(set(names)) < len(names):
        raise ValueError(f"class names must differ, got {', '.join(names)}")
    label = {one_spelling(name): number for number, name in enumerate(names)}
    unknown = [name for name in found if name not in label]
    if unknown:
        raise ValueError(
            f"{folder} holds folders of no class: {', '.join(unknown)}; the classes are "
            f"{', '.join(names)}. Remove or rename these folders, or name them as classes"
        )
    pairs = [(path, label[name]) for name in sorted(found, key=label.__getitem__)
             for path in found[name]]  # fmt: skip
    if not pairs:
        raise ValueError(
            f"{folder} holds no pictures in folders of classes; expected class/picture"
        )
    return _labelled(pairs), names


def read_splits(
    folder: Path,
) -> tuple[LabelledPictures, LabelledPictures, tuple[str, ...]] | None:
    """Training and test pictures of "split / class / picture" folders, and the class names.

    Where there are test and validation pictures, the latter are for training. None of another tree.
    """
    folder, found = _classes(folder)
    names = _splits(folder, found)
    if not names:
        return None
    kinds = {name: SPLITS[name.lower()] for name in names}
    test = "test" if "test" in kinds.values() else "val"
    if {*kinds.values()} not in ({"train", test}, {"train", "test", "val"}):
        raise ValueError(
            f"{folder} holds {' and '.join(names)}; expected a folder train, and test or val"
        )
    read = {name: read_tree(folder / name) for name in names}
    classes = tuple(sorted({name for _, own in read.values() for name in own}))
    splits: dict[bool, list[tuple[Path, int]]] = {False: [], True: []}
    for name, (pictures, own) in read.items():
        splits[kinds[name] == test] += [
            (path, classes.index(own[number]))
            for path, number in zip(pictures.paths, pictures.labels, strict=True)
        ]
    return _labelled(splits[False]), _labelled(splits[True]), classes


def _classes(folder: Path) -> tuple[Path, dict[str, list[Path]]]:
    """The folder around the classes, and the files below each folder with pictures, by its name.

    That is a lone folder in `folder` with a name of `AROUND`, or of a split, and no picture of its
    own; else `folder` itself. Two spellings of one name are one class.
    """
    found: dict[str, list[Path]] = {}
    for place in visible_folders(folder):
        if any_picture(files := visible_files(place)):
            found.setdefault(one_spelling(place.name), []).extend(files)
    if len(found) == 1:
        ((name, files),) = found.items()
        lone = folder / name
        if name.lower() in AROUND | SPLITS.keys() and not _is_flat(folder, files):
            return _classes(lone)
    return folder, dict(sorted(found.items()))


def _is_flat(folder: Path, files: Sequence[Path]) -> bool:
    """Whether some pictures lie in a folder of `folder` itself, and not deeper."""
    return any_picture(path for path in files if path.parent.parent == folder)


def _doubt(folder: Path, found: Mapping[str, list[Path]]) -> None:
    """Raise where the classes may be a level deeper; warn where they are, by their names."""
    if not found or any(_is_flat(folder, files) for files in found.values()):
        return
    below = [{path.relative_to(folder).parts[1] for path in files} for files in found.values()]
    inside, first = ", ".join(sorted(below[0])[:5]), folder / next(iter(found))
    if len(below[0]) > 1 and len(below) == 1:
        raise ValueError(
            f"{first} is the only folder of {folder}, around {inside}: if these are the classes, "
            "move them up, or give that folder; else move its pictures out of them"
        )
    if len(below[0]) > 1 and all(names == below[0] for names in below):
        warnings.warn(
            f"the classes of {folder} are {', '.join([*found][:5])}, each around {inside}: if "
            f"those are the classes, give {first}",
            stacklevel=3,
        )


def _splits(folder: Path, found: Mapping[str, list[Path]]) -> tuple[str, ...]:
    """The names of the folders where all of them are splits; ValueError where these are flat."""
    if len(found) < 2 or not all(name.lower() in SPLITS for name in found):
        return ()
    if any(_is_flat(folder, files) for files in found.values()):
        raise ValueError(
            f"{folder} holds {' and '.join(found)}: if these are classes, rename them; if they are "
            "splits, their pictures must be in folders of classes, split/class/picture"
        )
    return tuple(found)


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
