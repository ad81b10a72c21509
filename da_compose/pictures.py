"""Pictures from files: what counts as one, and how it becomes a small square of 8-bit RGB."""

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from da_compose.depth import deep_colours, said_bits, to_eight_bits
from da_compose.opening import opened

PICTURES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp",
            ".ppm", ".pgm"}  # fmt: skip
# Told by content. Not whatever Pillow knows: for EPS, say, it would start another program
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# Where a file of a kind that is not read says what it is, how, and the kind
FOREIGN = (
    (4, (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"), "HEIC"),
    (4, (b"ftypavif", b"ftypavis"), "AVIF"),
    (4, (b"jP  \r\n\x87\n",), "JPEG 2000"),
    (0, (b"8BPS",), "Photoshop"),
    (128, (b"DICM",), "DICOM"),
)
FOREIGN_SUFFIXES = {".heic", ".heif", ".avif", ".jp2", ".psd", ".dcm"}
# `Warning`: where the caller makes errors of what Pillow says about damage that it mends
BROKEN_PICTURE = (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError,
                  MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
                  Warning)  # fmt: skip
NO_PICTURE = "not a picture, or not of a known format"
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


def looks_like_picture(path: Path) -> bool:
    """Whether a name is that of a picture, also of a kind that is not read."""
    return path.suffix.lower() in PICTURES | FOREIGN_SUFFIXES


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its first bytes, also of a kind that is not read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with opened(path, FORMATS):
            return True
    except BROKEN_PICTURE:
        return _foreign(path) is not None


def named(broken: Sequence[BrokenPicture]) -> list[str]:
    """A line for each; one for all files of a suffix that is no picture's, as of annotations."""
    lines, others = [], dict[str, list[BrokenPicture]]()
    for one in broken:
        if one.reason != NO_PICTURE or looks_like_picture(one.path) or not one.path.suffix:
            lines.append(str(one))
        else:
            others.setdefault(one.path.suffix, []).append(one)
    for suffix, (first, *more) in others.items():
        also = f", nor are {len(more):,} more files ending in {suffix}" if more else ""
        lines.append(f"{first}{also}")
    return lines


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture as a viewer shows it, in 8-bit RGB.

    Turned as its EXIF data say, transparency laid on white, deep values as of `to_eight_bits`.
    """
    bits = said_bits(picture)
    colours = deep_colours(picture, bits)
    picture.load()  # some formats keep EXIF data behind the pixels
    turn = UPRIGHT.get(_orientation(picture))
    if colours is not None:
        picture = to_eight_bits(colours, bits)
    elif picture.mode == "F" or picture.mode.startswith("I"):
        picture = to_eight_bits(np.asarray(picture), bits)
    if turn is not None:
        picture = picture.transpose(turn)
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
        raise BrokenPicture(path, _reason(path, error)) from error


def _reason(path: Path, error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        kind = _foreign(path)
        if kind is None:
            return NO_PICTURE
        return f"a {kind} file, which is not read; save it as PNG or JPEG"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _foreign(path: Path) -> str | None:
    """The kind of a picture or scan that is not read, by its first bytes."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(140)
        for start, marks, kind in FOREIGN:
            if head.startswith(marks, start):
                return kind
    return None
