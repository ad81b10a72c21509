"""Commands that are killed at any moment, and started again: the result is that of one run."""

import signal
from collections.abc import Callable
from pathlib import Path

from numpy.random import Generator

from benchmarks.reliability.children import Stop, call
from benchmarks.reliability.commands import ALL, COMMANDS, command, contents, reference, same
from benchmarks.reliability.material import Material
from benchmarks.reliability.outcome import RIGHT, Outcome, Wrong, shortened

SIGNS = (signal.SIGKILL, signal.SIGINT)
MOST_STOPS = 3  # before the run that is let through


def part(number: int) -> str:
    """What a trial stops, and how."""
    return f"{_command(number)}, {_sign(number).name}"


def _command(number: int) -> str:
    return list(COMMANDS)[number % len(COMMANDS)]


def _sign(number: int) -> signal.Signals:
    return SIGNS[(number + number // len(COMMANDS)) % len(SIGNS)]


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    entry: Callable[..., None] = command,
) -> Outcome:
    """One command, stopped up to three times by one signal.

    At a file event it is the same moment in every run of the trial; at a time, about the same.
    """
    return stopped(material, folder, _command(number), _sign(number), random, entry)


def stopped(
    material: Material,
    folder: Path,
    name: str,
    sign: signal.Signals,
    random: Generator,
    entry: Callable[..., None],
) -> Outcome:
    """A command of any name that is stopped, and then let through."""
    whole, wanted = reference(material, name, entry)
    arguments = ALL[name](material, folder)
    stop = None
    for _ in range(int(random.integers(1, MOST_STOPS + 1))):
        at_event = random.random() < 0.6
        event = int(random.integers(1, whole.events + 1))
        moment = float(random.uniform(0, whole.seconds))
        stop = Stop(sign, event=event) if at_event else Stop(sign, seconds=moment)
        ended = call(entry, *arguments, folder=folder, stop=stop)
        if "Traceback" in ended.errors:
            raise Wrong(f"a traceback at {stop}: {shortened(ended.errors, last=True)}")
        if ended.code == 0:
            break
    ended = call(entry, *arguments, folder=folder)
    if ended.code:
        said = shortened(ended.errors, last=True)
        raise Wrong(f"did not go on ({ended.code}), the last at {stop}: {said}")
    # A killed process cannot empty the system's folder of temporary files; the system does
    found = contents(folder, ("tmp/",) if sign == signal.SIGKILL else ())
    same(found, wanted)
    return Outcome(RIGHT)
