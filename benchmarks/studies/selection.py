"""Which label-free criterion picks the best model: `python -m benchmarks.studies.selection`.

For each of the full profile's backbones and each target there is a pool of candidates: every start,
and adaptations by every strategy. Every criterion of `benchmarks.studies.criteria` sees unlabelled
training images of the target; its ranking is then compared with accuracy on the test split. Labels
so judge criteria, and no candidate is made or described with them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from adapters import STRATEGIES, AdaptConfig, StartConfig, adapt
from adapters.parts import LEARNING_RATES, MIXED
from adapters.start import NEAREST, best_start
from adapters.strategies.contract import rate_of
from benchmarks.harness import measure
from benchmarks.harness.benchmark import load_digits
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.digit_benchmark import DIGITS, PROFILES
from benchmarks.harness.folders import runs_of
from benchmarks.harness.picture_benchmarks import PICTURES, TARGETS, load_pictures
from benchmarks.harness.plan import TRAINED, UNTUNED, BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import GUIDE
from benchmarks.studies.criteria import CRITERIA, compared, observe
from benchmarks.studies.study import (
    backbone_options,
    run_study,
    study_options,
    target_splits,
    users_mistakes,
)
from benchmarks.studies.tuning import DEVELOPMENT_TARGETS
from da_compose import Backbone, Domain
from da_compose.starts import MEAN, make_start

STEPS = 40
MULTIPLES = (0.3, 1.0, 3.0)  # of a strategy's learning rate
FEW_MULTIPLES: Mapping[str, tuple[float, ...]] = {"classifier_discrepancy": (1.0,)}  # it is slow
POOL = ["recipe", "network", "seed", "target"]  # what names a pool of candidates
OF_ALL = "{} of all"  # a criterion, where the consensus is of all candidates and not of the starts
CONSENSUAL = ("consensus", "trust")
CRITERION_NAMES = (*CRITERIA, *(OF_ALL.format(name) for name in CONSENSUAL))
COMPARED = {"starts": ("start",), "adapted": ("kept", "last"), "all": ("start", "kept", "last")}
RANDOM = "a random candidate"
DEVELOPMENT = f"development targets ({', '.join(DEVELOPMENT_TARGETS)})"
CAPTION = f"""rank: Spearman's correlation with test accuracy, mean ± deviation over pools: a
backbone and a target. regret: points that the pick is below the best of its pool, mean and worst.
{GUIDE}
"""


def run_backbone(
    job: BackboneJob, domains: Mapping[str, Splits], targets: tuple[str, ...],
    runs: Path, results: Path,
) -> None:  # fmt: skip
    """Every unfinished pool on one backbone, in this process: of its own target, if none is named.

    domains: the sources, and all targets.
    """
    torch.set_num_threads(1)
    finished = finished_pools(read_lines(results))
    backbone = prepare_backbone(job, domains, job.folder(runs), "cpu")
    for target in targets or (job.target,):
        naming = {"recipe": job.recipe, "network": job.network, "seed": job.seed, "target": target}
        if tuple(naming.values()) in finished:
            continue
        lines = list(measure_pool(backbone, domains[target], TRAINED[job.network], job.seed))
        for line in lines:
            shared = {
                "benchmark": job.benchmark.name,
                "candidates": len(lines),
                "commit": measure.commit(),
            }
            append_line(results, naming | line | shared)
        print(f"{naming}: {len(lines)} candidates", flush=True)


def finished_pools(lines: Iterable[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Names of the pools of which every candidate's line is there."""
    found: dict[tuple[Any, ...], set[tuple[str, str]]] = {}
    sizes = {}
    for line in lines:
        pool = tuple(line[name] for name in POOL)
        found.setdefault(pool, set()).add((line["candidate"], line["kind"]))
        sizes[pool] = line["candidates"]
    return {pool for pool, candidates in found.items() if len(candidates) == sizes[pool]}


def measure_pool(
    backbone: Backbone, target: Splits, trains: str, seed: int
) -> Iterator[dict[str, Any]]:
    """A line of every candidate: name, kind, accuracy in percent, and every criterion."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(target.train), generator=generator).numpy()
    seen = target.train.images[order[: AdaptConfig.check_images]]  # those that `adapt` checks
    named, outputs = [], []
    for candidate, kind, domain in candidates(backbone, target.train.images, seen, trains, seed):
        tested = accuracy(backbone, domain, target.test)
        named.append({"candidate": candidate, "kind": kind, "accuracy": tested})
        outputs.append(observe(backbone, domain, seen))
    starts = [out for out, line in zip(outputs, named, strict=True) if line["kind"] == "start"]
    beside_starts, beside_all = compared(outputs, starts), compared(outputs, outputs)
    for line, own, other in zip(named, beside_starts, beside_all, strict=True):
        yield line | {
            **{name: criterion(own) for name, criterion in CRITERIA.items()},
            **{OF_ALL.format(name): CRITERIA[name](other) for name in CONSENSUAL},
        }


def candidates(
    backbone: Backbone,
    images: NDArray[np.uint8],
    seen: NDArray[np.uint8],
    trains: str,
    seed: int,
) -> Iterator[tuple[str, str, Domain]]:
    """Name, kind and domain of every candidate; a start's domain is good until the next is asked.

    images: unlabelled training images of the target (M, S, S) or (M, S, S, 3), `seen` some of them.
    Adaptations start from the domain that `best_start` chooses, searched once for all of them.
    """
    few = seen[: MIXED.start_images]
    for name in (MEAN, *backbone.network.domains.names):
        start = make_start(backbone, name, "target", few)
        for share in StartConfig().shares:
            start.use_statistics(share)
            yield f"{name} {share:g}", "start", start.target
    chosen = best_start(backbone, NEAREST, "target", seen, MIXED.start_images).name
    for strategy in [name for name in STRATEGIES if name not in UNTUNED]:
        for multiple in FEW_MULTIPLES.get(strategy, MULTIPLES):
            found = adapt(
                backbone,
                images,
                strategy,
                trains=trains,
                start=chosen,
                steps=STEPS,
                learning_rate=LEARNING_RATES[trains] * rate_of(STRATEGIES[strategy]()) * multiple,
                guard=False,
                seed=seed,
            )
            yield f"{strategy} {multiple:g}", "kept", found.domain
            yield f"{strategy} {multiple:g}", "last", found.last or found.domain


def summary(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """How well every criterion ranks and picks, over the pools of each kind of target.

    Index: targets, candidates compared, criterion. rank, spread: mean and standard deviation of
    Spearman's correlation with accuracy, 0 where a criterion says the same of all. regret, worst:
    mean and largest loss of accuracy against the best candidate, in points; of candidates that are
    equal by a criterion, the mean. n: pools.
    """
    frame = pd.DataFrame(list(lines)).drop_duplicates([*POOL, "candidate", "kind"], keep="last")
    known = frame.target.isin(DEVELOPMENT_TARGETS)
    frame["targets"] = frame.target.mask(known, DEVELOPMENT)
    frame["targets"] = frame.targets.mask(frame.benchmark != "digits", frame.benchmark)
    rows = []
    for _, pool in frame.groupby(POOL):
        for among, kinds in COMPARED.items():
            own = pool.loc[pool.kind.isin(kinds)]
            ranks = own.corr("spearman", numeric_only=True)["accuracy"].fillna(0.0)
            picked = {
                name: own.accuracy[own[name] == own[name].max()].mean() for name in CRITERION_NAMES
            }
            for name, reached in {**picked, RANDOM: own.accuracy.mean()}.items():
                regret = own.accuracy.max() - reached
                rows.append((pool.targets.iloc[0], among, name, ranks.get(name), regret))
    keys = ["targets", "among", "criterion"]
    return pd.DataFrame(rows, columns=[*keys, "rank", "regret"]).groupby(keys, sort=False).agg(
        rank=("rank", "mean"), spread=("rank", "std"),
        regret=("regret", "mean"), worst=("regret", "max"), n=("regret", "size"),
    )  # fmt: skip


def markdown(means: pd.DataFrame) -> str:
    """A table for the development targets and one for each other; the least regret is bold."""
    text = CAPTION
    targets = means.index.unique("targets")
    for shown in sorted(targets, key=lambda name: (name != DEVELOPMENT, name)):
        here = means.loc[shown]
        lines = [["criterion"], ["---"]]
        for among in COMPARED:
            lines[0] += [f"{among}: rank", "regret", "worst"]
            lines[1] += ["--:"] * 3
        for name in (*CRITERION_NAMES, RANDOM):
            lines.append([name])
            for among in COMPARED:
                row = here.loc[(among, name)]
                least = row.regret == here.loc[among].regret.min()
                regret = f"**{row.regret:.2f}**" if least else f"{row.regret:.2f}"
                rank = f"{row['rank']:.2f} ± {row.spread:.2f}".replace("nan", "-")
                lines[-1] += ["-" if name == RANDOM else rank, regret, f"{row.worst:.2f}"]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        text += f"\n{shown}, {here.n.iloc[0]} pools:\n\n{table}\n"
    return text


@click.command()
@click.option("--benchmark", type=click.Choice(["digits", *TARGETS]), default="digits")
@study_options("selection", runs=None)
@backbone_options((*DEVELOPMENT_TARGETS, "usps"))
def main(
    benchmark: str, runs: Path | None, results: Path, data: Path | None, seeds: tuple[int, ...],
    recipes: tuple[str, ...], networks: tuple[str, ...], targets: tuple[str, ...], processes: int,
) -> None:  # fmt: skip
    """Compare label-free criteria on a benchmark's backbones; write the table of all there are.

    --target is of the digits; of pictures each domain is one.
    """
    with users_mistakes():
        if benchmark == "digits":
            chosen = load_digits(data)
            domains = chosen.domains | target_splits(chosen, targets, data)
            jobs = chosen.jobs(DIGITS, replace(PROFILES["full"], seeds=seeds), recipes, networks)
        else:
            pictures, targets = PICTURES[benchmark], ()
            profile = replace(pictures.profiles["full"], seeds=seeds)
            recipes = tuple(name for name in recipes if name in pictures.recipes)
            rotations = load_pictures(benchmark, data)
            jobs = [job for r in rotations for job in r.jobs(pictures, profile, recipes, networks)]
            domains = {name: splits for r in rotations for name, splits in r.domains.items()}
        shared = (domains, targets, runs or runs_of(benchmark))
        run_study(
            run_backbone, jobs, shared, results, processes, lambda lines: markdown(summary(lines))
        )


if __name__ == "__main__":
    main()
