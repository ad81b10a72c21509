"""A disk that is full at any byte of any output: named in one line, nothing half-written.

The limit on the size of a file stands for the disk: the error is another, what follows the same.
"""

from collections.abc import Callable
from pathlib import Path

from numpy.random import Generator

from benchmarks.reliability.children import call
from benchmarks.reliability.commands import WRITING, command, contents, reference, same
from benchmarks.reliability.material import Material
from benchmarks.reliability.outcome import (
    REFUSED,
    RIGHT,
    Outcome,
    Wrong,
    refused_command,
    shortened,
)

GROWING = ("pretrain.jsonl", "training-state.safetensors", "unfinished")  # kept to go on from
CAUSES = ("too large", "space", "full", "requested and")


def part(number: int) -> str:
    """The command whose files cannot grow."""
    return list(WRITING)[number % len(WRITING)]


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    entry: Callable[..., None] = command,
) -> Outcome:
    """One command where files may have so many bytes, then again where they may have any."""
    name = part(number)
    _, wanted = reference(material, name, entry)
    whole = material.folder / "references" / name.replace(" ", "-")
    sizes = [(whole / file).stat().st_size for file in wanted if not file.endswith("/")]
    largest = int(random.choice([size for size in sizes if size]))
    limit = int(random.choice([0, 1, largest // 2, largest - 1, int(random.integers(0, largest))]))
    arguments = WRITING[name](material, folder)
    ended = call(entry, *arguments, folder=folder, largest=limit)
    said = ""
    if ended.code:
        said = refused_command(ended.code, ended.errors, folder)
        if not any(cause in said for cause in CAUSES):
            raise Wrong(f"the error does not name the cause: {shortened(said)}")
        for file, digest in contents_or_broken(folder).items():
            if not file.endswith("/") and wanted.get(file) != digest:
                raise Wrong(f"at {limit} bytes {file} was left, {digest}")
        again = call(entry, *arguments, folder=folder)
        if again.code:
            raise Wrong(f"did not go on with room: {shortened(again.errors, last=True)}")
    same(contents(folder), wanted)
    return Outcome(REFUSED if said else RIGHT, said)


def contents_or_broken(folder: Path) -> dict[str, str]:
    """As `contents`; Wrong where a file cannot be read."""
    try:
        return contents(folder, GROWING)
    except ValueError as error:
        raise Wrong(f"half-written: {shortened(str(error))}") from error
