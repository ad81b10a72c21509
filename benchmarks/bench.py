"""`da-compose bench digits`: from data to rows, tables and plots."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.digits import Profile, plan
from benchmarks.report import draw_backbone, write_report
from benchmarks.results import ResultRow
from benchmarks.run import Splits, run_jobs
from data_prep import DigitBenchmark, PreparedDomain, choose_digit_benchmark, load_digit_domain


@dataclass(frozen=True)
class BenchmarkData:
    """The chosen sources and target, prepared, with one fingerprint for all of them."""

    chosen: DigitBenchmark
    prepared: dict[str, PreparedDomain]

    @property
    def fingerprint(self) -> str:
        parts = sorted(f"{name}:{domain.fingerprint}" for name, domain in self.prepared.items())
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def load_benchmark_data(data_root: Path | None, target: str | None = None) -> BenchmarkData:
    """Choose and prepare the domains of the digits benchmark with the data at hand."""
    chosen = choose_digit_benchmark(data_root, target)
    names = (*chosen.sources, chosen.target)
    return BenchmarkData(chosen, {n: load_digit_domain(n, data_root=data_root) for n in names})


def bench_digits(
    data: BenchmarkData,
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
) -> list[ResultRow]:
    """Run every unfinished cell of a profile, then make tables and plots; returns all rows."""
    chosen = data.chosen
    say(f"digits: {', '.join(chosen.sources)} -> {chosen.target}; data: {chosen.origin}")
    for note in chosen.notes:
        say(f"note: {note}")
    jobs = list(
        plan(
            profile,
            recipes=recipes,
            networks=networks,
            sources=chosen.sources,
            target=chosen.target,
            data=chosen.origin,
            data_fingerprint=data.fingerprint,
        )
    )
    domains = {name: Splits(d.train, d.test) for name, d in data.prepared.items()}
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
    )
    rows = write_report(results)
    for job in jobs:
        if job.seed == profile.seeds[0]:
            draw_backbone(job, domains, runs, results)
    return rows
