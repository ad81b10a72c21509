"""Two ways of doing the same, timed in alternation; a result row is their ratio."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks.harness import measure

REPEATS = 9


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """One comparison. `ratio` above 1: ours is better."""

    name: str
    ours: float
    other: float
    unit: str  # of `ours` and `other`; a rate ends in /s: more is better; else less is
    ratio: float
    target: float | None  # least ratio that was set as a goal
    against: str  # what `other` is
    repeats: int
    device: str
    threads: int
    commit: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, before it is measured."""

    name: str
    against: str
    target: float | None = None
    device: str = "cpu"

    def of_calls(
        self,
        ours: Callable[[], Any],
        other: Callable[[], Any],
        *,
        work: float | None = None,
        work_unit: str = "images",
        repeats: int = REPEATS,
        versions: dict[str, str] | None = None,
    ) -> SpeedRow:
        """Median time of both in ms; as rates where `work`, done by a call, is given."""
        seconds = alternate(ours, other, repeats, self.device)
        values = [work / s if work else 1000 * s for s in seconds]
        unit = f"{work_unit}/s" if work else "ms"
        return self.of_values(*values, unit=unit, repeats=repeats, versions=versions)

    def of_values(
        self,
        ours: float,
        other: float,
        *,
        unit: str,
        repeats: int = 1,
        threads: int | None = None,
        versions: dict[str, str] | None = None,
    ) -> SpeedRow:
        """A row of two figures that were measured otherwise."""
        return SpeedRow(
            name=self.name,
            ours=ours,
            other=other,
            unit=unit,
            ratio=ours / other if unit.endswith("/s") else other / ours,
            target=self.target,
            against=self.against,
            repeats=repeats,
            device=measure.device_name(torch.device(self.device)),
            threads=threads or torch.get_num_threads(),
            commit=measure.commit(),
            versions=measure.versions() | (versions or {}),
        )


def alternate(
    ours: Callable[[], Any],
    other: Callable[[], Any],
    repeats: int,
    device: str = "cpu",
) -> tuple[float, float]:
    """Median seconds of both, called in turn, so that what slows the machine slows both.

    Each turn has a call that is not timed: the other way has just left the caches full of its own.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, found in zip((ours, other), times, strict=True):
            call()
            found.append(timed(call, device))
    return median(times[0]), median(times[1])


def timed(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call; on a GPU until its work there is done."""
    settle(device)
    started = time.perf_counter()
    call()
    settle(device)
    return time.perf_counter() - started


def settle(device: str) -> None:
    """Wait for what a GPU has still to do."""
    if device != "cpu":
        torch.cuda.synchronize()
