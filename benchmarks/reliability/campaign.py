"""Which trials there are, how many of each a profile makes, and their rows."""

import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import measure
from benchmarks.reliability.material import Material, make_material
from benchmarks.reliability.outcome import VERDICTS, WRONG, Outcome, Wrong, shortened
from benchmarks.reliability.worker import Worker

FOUND = 10  # wrong trials of a part that a row tells of
PROFILES = ("short", "quick", "full")  # a minute, ten, an hour, on one core


@dataclass(frozen=True)
class Kind:
    """One kind of trial: the module of its `trial` and `part`, and how many of it by profile.

    worker: in a child, as it calls the library itself; else it starts children.
    """

    module: str
    counts: tuple[int, int, int]
    worker: bool = False

    @property
    def trial(self) -> Callable[..., Outcome]:
        """One trial: (material, folder, number, generator) -> how it ends."""
        return import_module(self.module).trial

    def part(self, number: int) -> str:
        """What of its kind a trial tries."""
        return import_module(self.module).part(number)

    def count(self, profile: str) -> int:
        return self.counts[PROFILES.index(profile)]


KINDS: dict[str, Kind] = {
    "kills": Kind("benchmarks.reliability.kills", (5, 48, 240)),
    "workers": Kind("benchmarks.reliability.workers", (0, 1, 6)),
    "mutations": Kind("benchmarks.reliability.mutations", (36, 900, 9_000), worker=True),
    "pictures": Kind("benchmarks.reliability.pictures", (2, 12, 36)),
    "disks": Kind("benchmarks.reliability.disks", (5, 40, 240)),
    "streams": Kind("benchmarks.reliability.streams", (1, 5, 12), worker=True),
    "threads": Kind("benchmarks.reliability.threads", (2, 30, 200), worker=True),
    "inputs": Kind("benchmarks.reliability.inputs", (14, 280, 1_400), worker=True),
}


@dataclass(frozen=True)
class Campaign:
    """A working folder and a seed; each trial is a function of kind, number and seed."""

    folder: Path
    material: Material
    seed: int

    @classmethod
    def at(cls, folder: Path, seed: int) -> "Campaign":
        """Begin in a folder, which is emptied."""
        folder = folder.absolute()
        shutil.rmtree(folder, ignore_errors=True)
        torch.set_num_threads(1)
        return cls(folder, make_material(folder / "material"), seed)

    def run(self, name: str, numbers: Iterator[int] | range) -> Iterator[tuple[int, Outcome]]:
        """Number and outcome of trials of a kind; the folders of wrong ones are kept."""
        kind, worker = KINDS[name], Worker(self.folder / name / "worker")
        try:
            for number in numbers:
                yield number, self._one(name, kind, worker, number)
        finally:
            worker.stop()

    def _one(self, name: str, kind: Kind, worker: Worker, number: int) -> Outcome:
        folder = self.folder / name / str(number)
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode()), number])
        arguments = (self.material, folder, number, random)
        try:
            found = worker.call(kind.trial, *arguments) if kind.worker else kind.trial(*arguments)
        except Wrong as wrong:
            # Rows are committed: they name no path of this machine
            return Outcome(WRONG, shortened(str(wrong).replace(f"{self.folder}/", "")))
        shutil.rmtree(folder, ignore_errors=True)
        return found


def rows_of(
    name: str,
    found: Iterator[tuple[int, Outcome]],
    about: Mapping[str, Any],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A row of each part of a kind: how many trials were tried, right, refused and wrong."""
    counts: dict[str, Counter[str]] = {}
    wrong: dict[str, list[str]] = {}
    began = time.perf_counter()
    for number, outcome in found:
        part = KINDS[name].part(number)
        counts.setdefault(part, Counter())[outcome.verdict] += 1
        if outcome.verdict == WRONG:
            say(f"WRONG --only {name} --trial {number} ({part}): {outcome.said}")
            wrong.setdefault(part, []).append(f"--trial {number}: {outcome.said}")
    seconds = round(time.perf_counter() - began, 1)
    return [
        {"kind": name, "part": part, "tried": verdicts.total()}
        | {verdict: verdicts[verdict] for verdict in VERDICTS}
        | {"found": wrong.get(part, [])[:FOUND], "seconds_of_kind": seconds}
        | dict(about)
        for part, verdicts in sorted(counts.items())
    ]


def about(profile: str, seed: int) -> dict[str, Any]:
    """What a row says besides its counts."""
    return {
        "profile": profile,
        "seed": seed,
        "commit": measure.commit(),
        "device": measure.device_name(torch.device("cpu")),
        "versions": measure.versions(),
    }
