"""A benchmark in two processes that is killed: none of them outlives it, and it goes on."""

import signal
from collections.abc import Callable
from pathlib import Path

from numpy.random import Generator

from benchmarks.reliability.commands import TOGETHER, command
from benchmarks.reliability.kills import SIGNS, stopped
from benchmarks.reliability.material import Material
from benchmarks.reliability.outcome import Outcome


def part(number: int) -> str:
    """How it is stopped."""
    return f"bench, two processes, {_sign(number).name}"


def _sign(number: int) -> signal.Signals:
    return SIGNS[number % len(SIGNS)]


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    entry: Callable[..., None] = command,
) -> Outcome:
    """As `kills.trial`; processes that are left alive are wrong in every trial."""
    (name,) = TOGETHER
    return stopped(material, folder, name, _sign(number), random, entry)
