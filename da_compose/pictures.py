"""Pictures from files: what counts as one, and how it becomes a small square of 8-bit RGB."""

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from da_compose.opening import opened

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
# Told by content. Not whatever Pillow knows: for EPS, say, it would start another program
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# `Warning`: where the caller makes errors of what Pillow says about damage that it mends
BROKEN_PICTURE = (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError,
                  MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
                  Warning)  # fmt: skip
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes and resizes outside of Python's lock
AHEAD = 256  # decoded pictures that wait in memory
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenPicture(ValueError):
    """A file that is no whole picture; `reason` says why, in one line without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def list_pictures(path: Path) -> list[Path]:
    """All picture files below a folder, sorted; or the one file that `path` is."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder at {path}; check the path")
    found = [file for file in visible_files(path) if file.suffix.lower() in PICTURES]
    if not found:
        raise ValueError(f"no pictures below {path}; looked for {', '.join(sorted(PICTURES))}")
    return found


def visible_files(folder: Path) -> list[Path]:
    """All below a folder that is not a folder, sorted; hidden files and folders are passed over.

    Links to folders are followed, but no folder is read twice. Raises OSError where one cannot be
    listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    found, read = [], set[Path]()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place).resolve()
        if here in read:  # by another link
            folders.clear()
            continue
        read.add(here)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not here.is_relative_to(Path(place, name).resolve())  # a link in a circle
        )
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """One picture file as uint8 RGB (S, S, 3), S = size, squeezed to a square.

    See `to_rgb`; an animation gives its first frame. Raises `BrokenPicture`, also where the
    picture has more than `PIL.Image.MAX_IMAGE_PIXELS` pixels.
    """
    return _decode(path, size)


def read_all(paths: Sequence[Path], size: int) -> Iterator[NDArray[np.uint8] | BrokenPicture]:
    """`read_picture` of each path, in order, or its error; in threads, few held in memory."""
    for start in range(0, len(paths), AHEAD):
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda path: _try(path, size), paths[start : start + AHEAD]))
        yield from found


def open_rgb(path: Path) -> Image.Image:
    """One picture file at its own size, as `to_rgb`; raises `BrokenPicture`."""
    try:
        with opened(path, FORMATS) as picture:
            return to_rgb(picture)
    except BROKEN_PICTURE as error:
        raise BrokenPicture(path, _reason(error)) from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture as a viewer shows it, in 8-bit RGB.

    Turned as its EXIF data say, transparency laid on white, deep grey scaled down to 8 bits.
    """
    picture.load()  # some formats keep EXIF data behind the pixels
    turn = UPRIGHT.get(_orientation(picture))
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.mode == "F":  # float
        values = np.asarray(picture)
        if not (values.min() >= 0 and values.max() <= 1):  # nor is NaN
            raise ValueError(f"float values {values.min()} to {values.max()} exceed [0, 1]")
        picture = Image.fromarray((values * 255).round().astype(np.uint8))
    elif picture.mode.startswith("I"):  # 16 bits, in 16 or 32
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"grey values {values.min()} to {values.max()} exceed 16 bits")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN_PICTURE:  # the pixels are whole: shown as they lie
        return 1


def _try(path: Path, size: int) -> NDArray[np.uint8] | BrokenPicture:
    try:
        return _decode(path, size)
    except BrokenPicture as broken:
        return broken


def _decode(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
            raise ValueError("a folder or device, not a file")
        if state.st_size == 0:
            raise ValueError("the file is empty")
        with opened(path, FORMATS) as picture:
            picture.draft(None, (2 * size, 2 * size))  # a JPEG at 1/2, 1/4 or 1/8 of its size
            square = (size, size)
            small = to_rgb(picture).resize(square, Image.Resampling.BILINEAR, reducing_gap=3.0)
            return np.asarray(small)
    except BROKEN_PICTURE as error:
        raise BrokenPicture(path, _reason(error)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture, or not of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
