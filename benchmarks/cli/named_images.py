"""Unlabelled images of a user's path, with a name for each, and what could not be read and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from da_compose.archives import is_archive
from da_compose.folders import list_pictures
from da_compose.pictures import BrokenPicture, read_picture
from da_compose.reading import read_images, read_pictures


@dataclass(frozen=True)
class NamedImages:
    """Images (M, S, S) or (M, S, S, 3), M names, and (path, reason) of each picture left out."""

    images: NDArray[np.uint8]
    names: Sequence[str]
    left_out: Sequence[tuple[Path, str]]


def read_named_images(path: Path, size: int) -> NamedImages:
    """What `read_images` makes of a folder, a picture or an `.npz`, and names."""
    if is_archive(path):
        images = read_images(path, size)
        return NamedImages(images, [f"{path}[{n}]" for n in range(len(images))], ())
    paths = list_pictures(path)
    images, kept = read_pictures(paths, size)
    broken = sorted(set(paths) - set(kept))
    return NamedImages(images, [*map(str, kept)], [(path, _reason(path, size)) for path in broken])


def _reason(path: Path, size: int) -> str:
    """Why a picture cannot be read: it is read again, as there are few of them."""
    try:
        read_picture(path, size)
    except BrokenPicture as error:
        return error.reason
    return "could not be read at first"
