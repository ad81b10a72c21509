"""Broken pictures among good ones: every command names them all, and its counts add up."""

import csv
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from benchmarks.reliability.children import Ended, call
from benchmarks.reliability.commands import command
from benchmarks.reliability.material import CLASSES, SIZE, Material, write_pictures
from benchmarks.reliability.outcome import RIGHT, Outcome, Wrong, shortened

SIDE = 40
SIZES = ((2, 7), (10, 34), (100, 334))  # broken ones, and good ones of each class, by round


def _encoded(random: Generator, kind: str) -> bytes:
    file = io.BytesIO()
    pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _cut(random: Generator, kind: str) -> bytes:
    content = _encoded(random, kind)
    return content[: int(random.integers(len(content) // 5, 3 * len(content) // 4))]


def _overwritten(random: Generator, kind: str, start: int) -> bytes:
    content = _encoded(random, kind)
    return content[:start] + random.bytes(40) + content[start + 40 :]


def _vast(random: Generator) -> bytes:
    """A PNG that says it has 900 million pixels, and holds none."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0), b"IDAT", b"IEND"]
    chunks = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# By suffix, what a broken file of each kind holds
BROKEN: Mapping[str, Callable[[Generator], bytes]] = {
    "empty.jpg": lambda random: b"",
    "text.png": lambda random: b"<html>404 not found</html>",
    "noise.jpg": lambda random: random.bytes(500),
    "cut.jpg": lambda random: _cut(random, "JPEG"),
    "cut.png": lambda random: _cut(random, "PNG"),
    "cut.tif": lambda random: _cut(random, "TIFF"),
    "overwritten.png": lambda random: _overwritten(random, "PNG", 200),
    "overwritten.gif": lambda random: _overwritten(random, "GIF", 0),
    "vast.png": _vast,
    "zeros.webp": lambda random: bytes(len(_encoded(random, "WEBP"))),
}
PLACES = ("link.png", "pipe.png")  # a link to nothing, a pipe: no files at all
KINDS = (*BROKEN, *PLACES)


def write_broken(folder: Path, count: int, kind: str, random: Generator) -> list[Path]:
    """So many broken files of a kind in the classes' folders; their paths."""
    written = []
    for number in range(count):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:04}-{kind}"
        if kind == "link.png":
            path.symlink_to(folder / "nowhere")
        elif kind == "pipe.png":
            os.mkfifo(path)
        else:
            path.write_bytes(BROKEN[kind](random))
        written.append(path)
    return written


def part(number: int) -> str:
    """What is broken, and how."""
    return KINDS[number % len(KINDS)]


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    entry: Callable[..., None] = command,
) -> Outcome:
    """Pictures of one kind of damage among good ones, read by every command that reads a folder."""
    kind = part(number)
    broken_count, of_a_class = SIZES[min(number // len(KINDS), len(SIZES) - 1)]
    site = folder / "tree" / "site-9"
    good = write_pictures(site, of_a_class, seed=1000 + number)
    broken = write_broken(site, broken_count, kind, random)
    for name, (arguments, check) in _commands(material, folder, site).items():
        ended = call(entry, *arguments, folder=folder)
        if ended.code:
            raise Wrong(f"{name} failed: {shortened(ended.errors, last=True)}")
        heard = ended.errors + "".join(
            path.read_text(errors="surrogateescape") for path in folder.rglob("problems.csv")
        )
        if unnamed := [path for path in broken if str(path) not in heard]:
            raise Wrong(f"{name} does not name {len(unnamed)} of {len(broken)} broken ones")
        if (counted := check(ended)) != len(good):
            raise Wrong(f"{name} counts {counted} pictures, {len(good)} are good")
        if named := [path for path in good if str(path) in ended.errors]:
            raise Wrong(f"{name} names {named[0]}, which is good, as broken")
    return Outcome(RIGHT)


def _commands(
    material: Material, folder: Path, site: Path
) -> dict[str, tuple[list[object], Callable[[Ended], int]]]:
    """Every command that reads a folder, and how many good pictures it counts."""
    backbone = ["--backbone", material.backbone]
    size = ["--image-size", SIZE]
    adapter = folder / "adapter.safetensors"
    return {
        "adapt": (
            ["adapt", *backbone, "--images", site, "--out", adapter, "--steps", 1,
             "--report", folder / "report.html"],
            lambda ended: _first(r"([\d,]+), unlabelled", (folder / "report.html").read_text()),
        ),
        "predict": (
            ["predict", *backbone, "--adapter", adapter, site],
            lambda ended: len(list(csv.reader(io.StringIO(ended.said)))) - 1,
        ),
        "evaluate": (
            ["evaluate", *backbone, "--domain", site],
            lambda ended: _first(r"of ([\d,]+) pictures of the folder", ended.said),
        ),
        "prepare": (["prepare", "--pictures", site.parent, *size], _of_splits),
        "pretrain": (
            ["pretrain", folder / "run" / "backbone.safetensors", "--pictures", site.parent,
             *size, "--steps", 1],
            lambda ended: _prepared(folder),
        ),
        "train-tasks": (
            ["train-tasks", folder / "tasks" / "backbone.safetensors", "--task", site, *size,
             "--steps", 1],
            lambda ended: _prepared(folder),
        ),
    }  # fmt: skip


def _first(pattern: str, text: str) -> int:
    """The number that a pattern finds in a text; -1 for none."""
    found = re.search(pattern, text)
    return int(found[1].replace(",", "")) if found else -1


def _of_splits(ended: Ended) -> int:
    found = re.search(r"([\d,]+) training and ([\d,]+) test images", ended.said)
    return sum(int(part.replace(",", "")) for part in found.groups()) if found else -1


def _prepared(folder: Path) -> int:
    """Images of the domain that was prepared last."""
    prepared = max(folder.rglob("domain.json"), key=lambda path: path.stat().st_mtime).parent
    return sum(len(np.load(path, mmap_mode="r")) for path in prepared.glob("*_labels.npy"))
