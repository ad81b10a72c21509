"""A benchmark from data to rows: what `da-compose bench` runs."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.cells import Splits, run_jobs
from benchmarks.harness.plan import BackboneJob, Benchmark, Profile, plan
from data_prep import (
    DigitBenchmark,
    PreparedDomain,
    choose_digit_benchmark,
    choose_real_digits,
    load_digit_domain,
)
from data_prep.digits import NUM_CLASSES


@dataclass(frozen=True, kw_only=True)
class BenchmarkData:
    """Sources and target of one rotation, prepared, and where they came from."""

    sources: tuple[str, ...]
    target: str
    class_names: tuple[str, ...]
    origin: str  # "files", "download", "bundled", or several joined by "+"
    prepared: dict[str, PreparedDomain]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of all domains together."""
        parts = sorted(f"{name}:{domain.fingerprint}" for name, domain in self.prepared.items())
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @property
    def domains(self) -> dict[str, Splits]:
        return {name: Splits(domain.train, domain.test) for name, domain in self.prepared.items()}

    def jobs(
        self,
        benchmark: Benchmark,
        profile: Profile,
        recipes: tuple[str, ...],
        networks: tuple[str, ...],
    ) -> Iterator[BackboneJob]:
        """Every backbone of a profile on these domains."""
        return plan(
            benchmark,
            profile,
            recipes=recipes,
            networks=networks,
            sources=self.sources,
            target=self.target,
            class_names=self.class_names,
            data=self.origin,
            data_fingerprint=self.fingerprint,
        )


def load_digits(data_root: Path | None, target: str | None = None) -> BenchmarkData:
    """Choose and prepare the domains of the digits benchmark with the data at hand."""
    return _of_digits(choose_digit_benchmark(data_root, target), data_root)


def load_real_digits(data_root: Path | None) -> list[BenchmarkData]:
    """The rotations of digits of different origin: each domain the target, the others sources."""
    return [_of_digits(chosen, data_root) for chosen in choose_real_digits(data_root)]


def _of_digits(chosen: DigitBenchmark, data_root: Path | None) -> BenchmarkData:
    names = (*chosen.sources, chosen.target)
    return BenchmarkData(
        sources=chosen.sources,
        target=chosen.target,
        class_names=tuple(map(str, range(NUM_CLASSES))),
        origin=chosen.origin,
        prepared={name: load_digit_domain(name, data_root=data_root) for name in names},
        notes=chosen.notes,
    )


def run_benchmark(
    benchmark: Benchmark,
    rotations: list[BenchmarkData],
    profile: Profile,
    *,
    recipes: tuple[str, ...],
    networks: tuple[str, ...],
    strategies: tuple[str, ...],
    oracles: bool,
    runs: Path,
    results: Path,
    processes: int,
    device: str,
    backend: str,
    scheduler: str | None,
    say: Callable[[str], None],
    seen: Callable[[Sequence[dict[str, Any]]], None] | None = None,
) -> tuple[list[BackboneJob], dict[str, Splits]]:
    """Run every unfinished cell of a profile; returns all jobs, and the domains they are of.

    rotations: one for each target; of equal domains, in the same order. seen: as of `run_jobs`.
    """
    jobs = []
    for data in rotations:
        say(f"{benchmark.name}: {', '.join(data.sources)} -> {data.target}; data: {data.origin}")
        jobs += data.jobs(benchmark, profile, recipes, networks)
    for note in dict.fromkeys(note for data in rotations for note in data.notes):
        say(f"note: {note}")
    jobs.sort(key=lambda job: profile.seeds.index(job.seed))  # a whole table first, then seeds
    domains = {name: splits for data in rotations for name, splits in data.domains.items()}
    run_jobs(
        jobs,
        domains,
        runs=runs,
        results=results / "results.jsonl",
        processes=processes,
        strategies=strategies,
        oracles=oracles,
        device=device,
        backend=backend,
        scheduler=scheduler,
        seen=seen,
    )
    return jobs, domains
