"""Faults to be found: commands and readers that are wrong on purpose, and a kind of trials."""

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability.commands import command
from benchmarks.reliability.outcome import RIGHT, Outcome, Wrong


def untidy(*arguments: object) -> None:
    """Leaves a file at every start."""
    (Path.cwd() / f"try-{len(list(Path.cwd().glob('try-*')))}").touch()
    command(*arguments)


def bluff(*arguments: object) -> None:
    """Says that all is well, whatever was."""
    try:
        command(*arguments)
    except SystemExit:
        return


def mute(*arguments: object) -> None:
    """Says nothing of what is left out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    command(*arguments)


def die() -> None:
    os._exit(7)


def sleep() -> None:
    time.sleep(60)


def allocate() -> Any:
    """More than a worker may have."""
    return bytearray(64 * 2**30)


def part(number: int) -> str:
    return "odd" if number % 2 else "even"


def trial(material: Any, folder: Path, number: int, random: Any) -> Outcome:
    """Wrong at 3."""
    folder.mkdir(parents=True, exist_ok=True)
    if number == 3:
        raise Wrong(f"planted in {folder}")
    return Outcome(RIGHT)
