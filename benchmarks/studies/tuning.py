"""Defaults chosen on development targets, never on the benchmark's own target.

`python -m benchmarks.studies.tuning` adapts the full profile's backbones to domains that are
neither source nor the target of the digits benchmark, with every setting of a small grid. Steps
on what is trained are doubled as long as that pays there; of the rates the default is that of
highest mean accuracy.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch

from adapters import adapt
from adapters.parts import LEARNING_RATES, STEPS
from benchmarks.harness import measure
from benchmarks.harness.benchmark import load_digits
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.digit_benchmark import DIGITS, PROFILES
from benchmarks.harness.oracle import RATES, train_oracle
from benchmarks.harness.plan import NETWORKS, TRAINED, BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.options import users_mistakes
from benchmarks.reports.tables import GUIDE
from benchmarks.studies.study import run_study, study_options, target_splits
from da_compose.training.recipes import DIGIT_RECIPES, usual_recipes

DEVELOPMENT_TARGETS = ("optdigits", "mnist_m")
MULTIPLES = (0.3, 1.0, 3.0)  # of the default learning rate of what is trained
LENGTHS = (50, 100, 200, 400)  # in steps
LEAST_GAIN = 0.25  # points of mean accuracy for which twice the steps are worth taking
STEPS_OF_ALL = STEPS["mixture_weights"]  # where all weights are trained, as in the benchmark


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the grid: a strategy, what it trains, and the two numbers that are chosen."""

    strategy: str
    trains: str
    learning_rate: float
    steps: int


def settings(network: str) -> Iterator[Setting]:
    """The grid of one network: rates at the default steps, then steps at the default rate."""
    trains = TRAINED[network]
    rate, steps = LEARNING_RATES[trains], STEPS[trains]
    choices = [("information_maximization", rate * multiple, steps) for multiple in MULTIPLES]
    choices += [("information_maximization", rate, length) for length in LENGTHS]
    for strategy in ("adversarial", "moment_matching", "classifier_discrepancy"):
        choices += [(strategy, rate * multiple, steps) for multiple in (0.2, 1.0)]
    for strategy, own_rate, length in choices:
        yield Setting(strategy=strategy, trains=trains, learning_rate=own_rate, steps=length)
    for multiple in MULTIPLES:
        own_rate = RATES["all"] * multiple
        yield Setting(strategy="oracle", trains="all", learning_rate=own_rate, steps=STEPS_OF_ALL)


def run_backbone(
    job: BackboneJob, sources: Mapping[str, Splits], targets: Mapping[str, Splits],
    runs: Path, results: Path,
) -> None:  # fmt: skip
    """Every unfinished setting on one backbone, in this process."""
    torch.set_num_threads(1)
    finished = [identity(line) for line in read_lines(results)]
    backbone = prepare_backbone(job, sources, job.folder(runs), "cpu")
    naming = {"recipe": job.recipe, "network": job.network, "seed": job.seed}
    for name, target in targets.items():
        for setting in dict.fromkeys(settings(job.network)):
            line: dict[str, Any] = {**naming, "target": name, **asdict(setting)}
            if identity(line) in finished:
                continue
            values: dict[str, Any] = {"steps": setting.steps, "seed": job.seed}
            if setting.strategy == "oracle":
                other, domain, _ = train_oracle(
                    backbone, target.train, "all", learning_rate=setting.learning_rate, **values
                )
                line["accuracy"] = accuracy(other, domain, target.test)
            else:
                found = adapt(
                    backbone,
                    target.train.images,
                    setting.strategy,
                    trains=setting.trains,
                    learning_rate=setting.learning_rate,
                    **values,
                )
                line["accuracy"] = accuracy(backbone, found.domain, target.test)
                line["last_accuracy"] = accuracy(backbone, found.last or found.domain, target.test)
            append_line(results, line | {"commit": measure.commit()})
            print(line, flush=True)


def identity(line: Mapping[str, Any]) -> str:
    """What a line is the result of."""
    keys = ("recipe", "network", "seed", "target", *Setting.__dataclass_fields__)
    return json.dumps([line[key] for key in keys])


def summary(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Mean accuracy of every setting over backbones and development targets, in percent."""
    frame = pd.DataFrame(list(lines))
    keys = ["network", *Setting.__dataclass_fields__]
    means = frame.groupby(keys, as_index=False).agg(
        accuracy=("accuracy", "mean"), last_accuracy=("last_accuracy", "mean"), n=("seed", "size")
    )
    for target in sorted(frame.target.unique()):
        own = frame[frame.target == target].groupby(keys).accuracy.mean()
        means[target] = [own.get(tuple(row)) for row in means[keys].itertuples(index=False)]
    return means


def shared_choices(means: pd.DataFrame) -> str:
    """Mean accuracy over both networks by multiple of the usual rate and by steps, as a table.

    A strategy's rate, as a multiple, is one number for both networks. What only one of them was
    measured with is left out.
    """
    usual = {**LEARNING_RATES, "all": RATES["all"]}
    rates = (means.learning_rate / means.trains.map(usual)).round(3)
    grouped = means.assign(rate=rates).groupby(["strategy", "rate", "steps"], as_index=False)
    both = grouped.agg(accuracy=("accuracy", "mean"), networks=("network", "nunique"))
    lines = [["strategy", "multiple of the rate", "steps", "mean of both networks"], ["---"] * 4]
    for _, row in both[both.networks == len(NETWORKS)].iterrows():
        lines.append([row.strategy, f"{row.rate:g}", str(row.steps), f"{row.accuracy:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def default_of(means: pd.DataFrame, trains: str) -> tuple[float, int]:
    """Learning rate and number of steps that the study says for what is trained.

    Steps are doubled as long as each time brings `LEAST_GAIN`, at the default rate; then the rate
    is the best one measured with so many.
    """
    own = [
        row for row in means.to_dict("records")
        if (row["strategy"], row["trains"]) == ("information_maximization", trains)
    ]  # fmt: skip
    rate, steps = LEARNING_RATES[trains], LENGTHS[0]
    by_steps = {r["steps"]: r["accuracy"] for r in own if isclose(r["learning_rate"], rate)}
    while by_steps.get(2 * steps, 0.0) - by_steps[steps] >= LEAST_GAIN:
        steps *= 2
    best = max((r for r in own if r["steps"] == steps), key=lambda r: r["accuracy"])
    return best["learning_rate"], steps


def markdown(means: pd.DataFrame) -> str:
    """The summary as a table; the best setting of each strategy and trained set is bold."""
    best = means.groupby(["network", "strategy", "trains"]).accuracy.idxmax()
    targets = [name for name in DEVELOPMENT_TARGETS if name in means]
    header = ["network", *Setting.__dataclass_fields__, "mean", "last step", *targets, "n"]
    lines = [header, ["---"] * len(header)]
    for place, row in means.iterrows():
        shown = f"{row.accuracy:.2f}"
        last = "-" if pd.isna(row.last_accuracy) else f"{row.last_accuracy:.2f}"
        lines.append(
            [row.network, row.strategy, row.trains, f"{row.learning_rate:g}", str(row.steps),
             f"**{shown}**" if place in set(best) else shown, last,
             *(f"{row[name]:.2f}" for name in targets), str(row.n)]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """What all lines say, and both tables of them."""
    means = summary(lines)
    said = []
    for trains in means.trains.unique():
        if set(LENGTHS) <= set(means.steps[means.trains == trains]):
            rate, steps = default_of(means, trains)
            said.append(f"{trains}: {rate:g}, {steps} steps")
    caption = (
        f"Chosen, {'; '.join(said) or 'nothing yet'}. Steps are doubled as long as that brings\n"
        f"{LEAST_GAIN:g} points or more, then the rate is that of the highest mean. Bold: the "
        f"highest mean of a strategy.\n{GUIDE}"
    )
    return f"{caption}\n\n{markdown(means)}\n{shared_choices(means)}"


@click.command()
@study_options("tuning", seeds=(0, 1))
def main(
    runs: Path, results: Path, data: Path | None, seeds: tuple[int, ...], processes: int
) -> None:
    """Adapt the digits benchmark's backbones to the development targets; write the table."""
    with users_mistakes():
        chosen = load_digits(data)
        profile = replace(PROFILES["full"], seeds=seeds)
        jobs = chosen.jobs(DIGITS, profile, usual_recipes(DIGIT_RECIPES), NETWORKS)
        shared = (chosen.domains, target_splits(chosen, DEVELOPMENT_TARGETS, data), runs)
        run_study(run_backbone, jobs, shared, results, processes, table)


if __name__ == "__main__":
    main()
