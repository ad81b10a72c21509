"""The guard, measured: how much harm it stops, how much good it refuses.

`python -m benchmarks.studies.guard` adapts the digits benchmark's backbones to targets as users
have them, also to tiny, unbalanced and hopeless ones, and looks at test labels afterwards. A cell
is harmful where what is kept without a guard is more than `MARGIN` points below the better of
source only and AdaBN, and caught where with the guard it is not; a false alarm is a harmless cell
that the guard refuses. Rules were made on the development targets; usps only confirms.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch

from adapters import adapt
from adapters.adapt import conclude
from adapters.config import BASELINES, AdaptConfig
from adapters.guard import judge, judge_learning
from adapters.loop import learn
from adapters.prepare import prepare
from adapters.selection import score
from adapters.strategies import STRATEGIES
from benchmarks.harness import measure
from benchmarks.harness.benchmark import load_digits
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.digit_benchmark import DIGITS, PROFILES
from benchmarks.harness.plan import TRAINED, BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import GUIDE
from benchmarks.studies.conditions import (
    Condition,
    Images,
    everything,
    few,
    noise,
    unbalanced,
    without_a_class,
)
from benchmarks.studies.study import (
    backbone_options,
    run_study,
    study_options,
    target_splits,
    users_mistakes,
)
from benchmarks.studies.tuning import DEVELOPMENT_TARGETS
from da_compose import Backbone
from da_compose.images import ImageSet
from da_compose.inference import predict_logits

MARGIN = 1.0  # points below the better of source only and AdaBN, from which on it is harm
TARGETS = (*DEVELOPMENT_TARGETS, "usps")
SOURCES = {"optdigits": "mnist", "mnist_m": "meter", "usps": "mnist_scale"}  # condition `source`
LEARNED = ("information_maximization", "moment_matching", "adversarial")
STEPS, TEST_IMAGES = 40, 2_000
COUNTED = (
    "condition", "cells", "harmful", "by the start", "caught", "missed", "false alarms",
    "their cost", "still harmful",
)  # fmt: skip
ACCURACIES = ("source_only", "batch_norm", "start", "kept", "guarded")
ALL = "in all"
FITTED = "development, compositional, seed 0"  # made adapters.guard's limits; the rest is held out
KEYS = ("recipe", "network", "seed", "target", "condition", "strategy")


CONDITIONS: Mapping[str, Condition] = {
    "all": everything,
    "tiny-10": partial(few, count=10),
    "tiny-30": partial(few, count=30),
    "tiny-100": partial(few, count=100),
    "one class missing": without_a_class,
    "10 to 1": unbalanced,
    "source": everything,  # of a source instead of the target, by `SOURCES`
    "noise": noise,  # and the target's test images
}


def images_of(domain: Splits, condition: str, seed: int) -> tuple[Images, ImageSet]:
    """A condition's images of a domain, and at most `TEST_IMAGES` labelled ones to test on."""
    generator = np.random.default_rng(seed)
    images = CONDITIONS[condition](domain.train, generator)
    order = generator.permutation(len(domain.test.images))[:TEST_IMAGES]
    return images, ImageSet(domain.test.images[order], domain.test.labels[order])


def run_backbone(
    job: BackboneJob, domains: Mapping[str, Splits], targets: tuple[str, ...],
    runs: Path, results: Path,
) -> None:  # fmt: skip
    """Every unfinished cell on one backbone, in this process."""
    torch.set_num_threads(1)
    finished = {identity(line) for line in read_lines(results)}
    backbone = prepare_backbone(job, domains, job.folder(runs), "cpu")
    for target in targets:
        for condition in CONDITIONS:
            cell = {"recipe": job.recipe, "network": job.network, "seed": job.seed}
            cell |= {"target": target, "condition": condition}
            todo = [s for s in LEARNED if identity(cell | {"strategy": s}) not in finished]
            domain = domains[SOURCES[target] if condition == "source" else target]
            for line in measure_condition(backbone, domain, condition, todo, job) if todo else ():
                append_line(results, cell | line | {"commit": measure.commit()})
                print(cell | line, flush=True)


def identity(line: Mapping[str, Any]) -> str:
    """What a line is the result of."""
    return json.dumps([line[key] for key in KEYS])


def measure_condition(
    backbone: Backbone, domain: Splits, condition: str, strategies: Iterable[str], job: BackboneJob
) -> Iterator[dict[str, Any]]:
    """A line of each strategy: accuracies in percent, the verdict, figures made without labels."""
    images, test = images_of(domain, condition, job.seed)
    unlearned = {name: adapt(backbone, images, name, seed=job.seed).domain for name in BASELINES}
    accuracies = {name: accuracy(backbone, d, test) for name, d in unlearned.items()}
    config = AdaptConfig(trains=TRAINED[job.network], steps=STEPS, seed=job.seed, guard=False)
    ready = prepare(backbone, images, "target", config)
    accuracies["start"] = accuracy(backbone, ready.target, test)
    plain = predict_logits(backbone.network, unlearned["source_only"], ready.checked)
    for strategy in strategies:
        found = conclude(ready, learn(ready, STRATEGIES[strategy]()))
        logits = predict_logits(backbone.network, found.domain, ready.checked)
        verdict = judge_learning(ready.logits, logits, certain=ready.certain)
        kept = accuracy(backbone, found.domain, test)
        scores = dict(ready.scores) | {"kept": score(logits)}
        yield {
            "strategy": strategy,
            "images": len(images),
            **accuracies,
            "kept": kept,
            "guarded": kept if verdict.trusted else accuracies["start"],
            "verdict": asdict(verdict),
            "chosen": {key: found.notes[key] for key in ("start", "target_share", "kept_step")},
            # without labels, for rules to come
            "scores": {name: asdict(scored) for name, scored in scores.items()},
            "start_from_source_only": judge(plain, ready.logits).changed,
            "kept_from_source_only": judge(plain, logits).changed,
        }


def summary(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Counts and mean accuracies by condition and in all, of each network.

    On development targets and on usps; cells that the limits were made on stand by themselves.
    """
    frame = pd.DataFrame(list(lines))
    least = frame[["source_only", "batch_norm"]].max(axis=1) - MARGIN
    refused = ~frame.verdict.map(lambda verdict: bool(verdict["trusted"]))
    frame["harmful"] = frame.kept < least
    frame["start_harmful"] = frame.harmful & (frame.start < least)
    frame["left"] = frame.guarded < least
    frame["caught"] = frame.harmful & ~frame.left
    frame["caught_learned"] = frame.caught & ~frame.start_harmful
    frame["false_alarms"] = ~frame.harmful & refused
    frame["cost"] = (frame.kept - frame.guarded).where(frame.false_alarms)
    known = frame.target.isin(DEVELOPMENT_TARGETS)
    fitted = known & (frame.network == "compositional") & (frame.seed == 0)
    frame["targets"] = frame.target.mask(known, "development") + ", " + frame.network
    frame["targets"] = frame.targets.mask(fitted, FITTED)
    counted = "harmful", "start_harmful", "caught", "caught_learned", "false_alarms", "left"
    counts = dict.fromkeys(counted, "sum")
    means = dict.fromkeys(("cost", *ACCURACIES), "mean")
    parts = []
    for targets, group in frame.groupby("targets", sort=True):
        if targets != FITTED:
            seeds = ", ".join(str(seed) for seed in sorted(group.seed.unique()))
            targets = f"{targets}, seeds {seeds}"
        for condition in (*CONDITIONS, ALL):
            own = group if condition == ALL else group[group.condition == condition]
            if len(own):
                row = own.agg(counts | means)
                parts.append(
                    {"targets": targets, "condition": condition, "cells": len(own)} | dict(row)
                )
    return pd.DataFrame(parts)


def markdown(means: pd.DataFrame) -> str:
    """The summary as tables, each with what is wanted of the guard."""
    sums = means.query("condition == @ALL")
    held_out = sums.query("targets != @FITTED")
    parts = [
        f"every cell: {finding(sums)}\n{GUIDE}\n",
        f"held out, all but {FITTED}: {finding(held_out)}\n",
    ]
    for targets, group in means.groupby("targets", sort=False):
        made = ", which the limits were made on" if targets == FITTED else ""
        parts.append(f"{targets}{made}: {finding(group.query('condition == @ALL'))}\n")
        counts: list[Sequence[str]] = [COUNTED]
        accuracies = [["condition", *(name.replace("_", " ") for name in ACCURACIES)]]
        for row in group.to_dict("records"):
            found = [row[name] for name in ("cells", "harmful", "start_harmful", "caught")]
            found += [row["harmful"] - row["caught"], row["false_alarms"]]
            cost = "-" if pd.isna(row["cost"]) else f"{row['cost']:+.1f}"
            numbers = (f"{count:.0f}" for count in found)
            counts.append([row["condition"], *numbers, cost, f"{row['left']:.0f}"])
            accuracies.append([row["condition"], *(f"{row[name]:.1f}" for name in ACCURACIES)])
        parts += [table(counts), "Accuracies of these cells in percent:\n", table(accuracies)]
    return "\n".join(parts)


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a header and lines."""
    header, *rest = lines
    marks = ["---", *["--:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, marks, *rest))


def finding(sums: pd.DataFrame) -> str:
    """What the guard did in the cells of these sums, beside what is wanted of it."""
    total = sums.sum(numeric_only=True)
    caught = share(total.caught, total.harmful)
    learned = share(total.caught_learned, total.harmful - total.start_harmful)
    alarms = share(total.false_alarms, total.cells - total.harmful)
    return (
        f"caught {caught} of harmful cells (wanted: at least 90 %),\n"
        f"{learned} of those whose start is harmless; false alarms at {alarms} of harmless ones "
        "(at most 10 %)"
    )


def share(part: float, whole: float) -> str:
    """A share in percent, and of what."""
    return f"{100 * part / whole:.0f} % ({part:.0f} of {whole:.0f})" if whole else "none of 0"


@click.command()
@study_options("guard")
@backbone_options(TARGETS)
def main(
    runs: Path, results: Path, data: Path | None, recipes: tuple[str, ...],
    networks: tuple[str, ...], seeds: tuple[int, ...], targets: tuple[str, ...], processes: int,
) -> None:  # fmt: skip
    """Measure the guard on the digits benchmark's backbones; write rows and the table."""
    with users_mistakes():
        if unknown := sorted({*targets} - {*TARGETS}):
            raise ValueError(f"no target {', '.join(unknown)}; choose from {', '.join(TARGETS)}")
        chosen = load_digits(data)
        domains = chosen.domains | target_splits(chosen, targets, data)
        if missing := sorted({SOURCES[target] for target in targets} - {*domains}):
            raise ValueError(f"{', '.join(missing)}: no source here; name targets without it")
        jobs = chosen.jobs(DIGITS, replace(PROFILES["full"], seeds=seeds), recipes, networks)
        shared = (domains, targets, runs)
        run_study(
            run_backbone, jobs, shared, results, processes, lambda lines: markdown(summary(lines))
        )


if __name__ == "__main__":
    main()
