"""Folders of tiny pictures, some of them broken, in every way that a picture breaks."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 24


def noise(seed: int, height: int = SIDE, width: int = SIDE) -> Image.Image:
    """A picture of random RGB pixels; no two seeds give the same."""
    shape = (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, and holds nearly nothing."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND"]
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _spoiled(content: bytes, at: int) -> bytes:
    return content[:at] + bytes(40) + content[at + 40 :]


# By suffix, what a broken file of each kind holds: none for a link to nothing
BROKEN: dict[str, Callable[[int], bytes | None]] = {
    "empty.jpg": lambda _: b"",
    "text.jpeg": lambda _: b"<html>404 not found</html>",
    "cut.jpg": lambda seed: _half(encoded(noise(seed), "JPEG")),
    "cut.png": lambda seed: _half(encoded(noise(seed), "PNG")),
    "cut.tif": lambda seed: _half(encoded(noise(seed), "TIFF")),
    "spoiled.png": lambda seed: _spoiled(encoded(noise(seed), "PNG"), 300),
    "header.gif": lambda seed: _spoiled(encoded(noise(seed), "GIF"), 0),
    "bomb.png": lambda _: png_of_size(30_000, 30_000),
    "deep.tif": lambda _: encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"),
    "link.webp": lambda _: None,
}


def make_pictures(folder: Path, good: int, broken_of_each_kind: int) -> list[Path]:
    """Write good PNG and JPEG pictures in folders `a` and `b`; the paths of broken ones, sorted.

    Broken ones, as many of each of `BROKEN`'s kinds, are spread among them.
    """
    for name in "ab":
        (folder / name).mkdir(parents=True)
    for number in range(good):
        suffix = ("png", "jpg")[number // 2 % 2]
        noise(number).save(folder / "ab"[number % 2] / f"{number:05}.{suffix}")
    broken = []
    for number in range(broken_of_each_kind):
        for kind, content_of in BROKEN.items():
            path = folder / "ab"[number % 2] / f"{number * good // broken_of_each_kind:05}-{kind}"
            content = content_of(number)
            if content is None:
                path.symlink_to(folder / "nowhere")
            else:
                path.write_bytes(content)
            broken.append(path)
    return sorted(broken)
