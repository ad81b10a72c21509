"""Experts composed, measured on pictures: `python -m benchmarks.studies.compose`.

EfficientNet-Lite0 is fine-tuned on each domain alone, from the same ImageNet weights. On each
domain in turn the experts of the others are compared: each alone, their ensemble, which takes as
many passes, the average of their weights, and their mixture layer by layer, learned without labels
or, as a bound, with them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters import Adaptation, AdaptConfig, adapt
from adapters.adapt import adapted
from adapters.parts import DIRECTED
from adapters.prepare import prepare
from adapters.start import NEAREST
from benchmarks.harness import measure
from benchmarks.harness.cells import BACKBONE, Splits, accuracy
from benchmarks.harness.folders import ROWS, runs_of
from benchmarks.harness.grid import run_grid
from benchmarks.harness.oracle import train_oracle
from benchmarks.harness.picture_benchmarks import load_pictures
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.options import IMAGE_SIZE, STEPS, users_mistakes
from benchmarks.reports.tables import GUIDE, NONE
from benchmarks.studies.study import study_options
from da_compose import Backbone, PretrainedRecipe, compose, probabilities
from da_compose.inference import predict_logits
from da_compose.starts import MEAN, make_start
from da_compose.storage.files import replacing
from da_compose.training.pretrained import finetune_backbone
from data_prep.alone import alone_in

RECIPE = PretrainedRecipe(directions=None)
SHARES = {"its own": 0.0, "the target's": 1.0}  # whose statistics: share of the target's
BOUND = "*bound: ξ with target labels*"  # the last method
BENCHMARKS = ("pacs", "satellite")  # the start was made on the first
HOW = ["benchmark", "image_size", "finetune_steps", "adapt_steps", "learning_rate", "per_class"]
IDENTITY = [*HOW, "seed", "target", "method", "statistics"]
STARTS = (MEAN, NEAREST)
TRIED = {  # from each: what it is called, and the strategy
    (MEAN, "average, heeding centroids"): "chosen_start",
    (MEAN, "ξ from the average"): "consensus",
    (NEAREST, "chosen start"): "chosen_start",
    (NEAREST, "ξ from the chosen start"): "consensus",
}
CAPTION = f"""Test accuracy in percent (± deviation over seeds), each domain in turn the target, of
experts that were each fine-tuned on one of the others; passes: forward passes an image. ξ is
learned without labels, with the guard.
{GUIDE}
"""
Domains = Mapping[str, Splits]
Job = tuple[str, int]  # a domain and a seed


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How experts are made and composed."""

    benchmark: str
    image_size: int
    finetune_steps: int
    adapt_steps: int
    learning_rate: float  # of xi
    per_class: int  # most pictures of a class; 0: all

    def expert(self, runs: Path, domain: str, seed: int) -> Path:
        """Where the expert of a domain is written, in a folder of its own."""
        few = f"-{self.per_class}-a-class" if self.per_class else ""
        folder = f"{domain}-{self.image_size}-{self.finetune_steps}{few}-seed-{seed}"
        return runs / folder / BACKBONE


def train_expert(
    job: Job, domains: Domains, class_names: tuple[str, ...], setting: Setting, runs: Path
) -> None:
    """Fine-tune on one domain, where that is not finished; an interrupted training goes on."""
    torch.set_num_threads(1)
    domain, seed = job
    path = setting.expert(runs, domain, seed)
    with alone_in(path.parent):
        if not path.exists():
            sources = {domain: domains[domain].train}
            finetune_backbone(
                RECIPE.at_size(setting.image_size), sources, class_names, path,
                steps=setting.finetune_steps, seed=seed, device="cpu", notes={},
            )  # fmt: skip


def measure_target(job: Job, domains: Domains, setting: Setting, runs: Path, results: Path) -> None:
    """All lines of a target and seed, in this process, where they are not there."""
    torch.set_num_threads(1)
    target, seed = job
    cell = {**asdict(setting), "seed": seed, "target": target}
    last = (cell | {"method": BOUND}).items()
    if any(last <= line.items() for line in read_lines(results)):
        print(f"{target} seed {seed}: finished earlier", flush=True)
        return
    others = [name for name in domains if name != target]
    paths = {name: setting.expert(runs, name, seed) for name in others}
    backbone, started = compose(paths, network=RECIPE.network), time.perf_counter()
    for line in lines_of(backbone, domains[target], seed, setting):
        spent = {"seconds": round(time.perf_counter() - started, 1)}
        about = {"commit": measure.commit(), "versions": measure.versions()}
        append_line(results, cell | line | spent | about)
        print(cell | line | spent, flush=True)
        started = time.perf_counter()


def lines_of(
    backbone: Backbone, target: Splits, seed: int, setting: Setting
) -> Iterator[dict[str, Any]]:
    """A line of each method and statistics: accuracy, passes an image, what was learned."""
    network, images, test = backbone.network, target.train.images, target.test
    for statistics, share in SHARES.items():
        found = []
        for expert in network.domains.names:
            start = make_start(backbone, expert, "target", images)
            start.use_statistics(share)
            found.append(probabilities(predict_logits(network, start.target, test.images)))
            yield of_predictions(f"expert {expert}", statistics, found[-1:], test.labels)
        yield of_predictions("ensemble", statistics, found, test.labels)
    average = network.new_domain("average")
    outcome = {"statistics": "its own", "passes": 1, "accuracy": accuracy(backbone, average, test)}
    yield {"method": "average"} | outcome
    options = {"steps": setting.adapt_steps, "learning_rate": setting.learning_rate, "seed": seed}
    found = of_adaptation(adapt(backbone, images, "batch_norm", seed=seed), target)
    yield {"method": "average", "statistics": "the target's"} | found
    made = {
        start: prepare(backbone, images, "target", AdaptConfig(start=start, **options))
        for start in STARTS
    }
    for (start, method), strategy in TRIED.items():
        found = of_adaptation(adapted(made[start].asking(strategy=strategy)), target)
        yield {"method": method, "statistics": "chosen"} | found
    steps, rate = setting.adapt_steps, setting.learning_rate
    _, domain, count = train_oracle(
        backbone, target.train, "mixture_weights", steps=steps, seed=seed, learning_rate=rate
    )
    bound = {"passes": 1, "accuracy": accuracy(backbone, domain, test), "learned": count}
    yield {"method": BOUND, "statistics": "chosen"} | bound


def of_predictions(
    method: str, statistics: str, found: Sequence[Tensor], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """A line of the mean of some experts' predictions, each (M, N)."""
    right = torch.stack([*found]).mean(dim=0).argmax(dim=1).numpy() == labels
    known = {"method": method, "statistics": statistics, "passes": len(found)}
    return known | {"accuracy": 100 * float(right.mean())}


def of_adaptation(adaptation: Adaptation, target: Splits) -> dict[str, Any]:
    """What is measured of an adaptation: as it is kept, and after its last step."""
    backbone = adaptation.backbone
    last = adaptation.last or adaptation.domain
    return {
        "passes": 1,
        "accuracy": accuracy(backbone, adaptation.domain, target.test),
        "last_accuracy": accuracy(backbone, last, target.test),
        "learned": adaptation.learned_parameters,
        "adaptation": adaptation.notes,
    }


def markdown(lines: Iterable[Mapping[str, Any]]) -> str:
    """For each size and length of training a row a method, a column a target and their mean."""
    first = {"benchmark": BENCHMARKS[0]}  # of rows that do not say
    frame = pd.DataFrame([first | {**line} for line in lines])
    frame, parts = frame.drop_duplicates(IDENTITY, keep="last"), [CAPTION]
    for how in frame[HOW].drop_duplicates().itertuples(index=False):
        group = frame[(frame[HOW] == [*how]).all(axis=1)]
        targets = sorted(group.target.unique())
        seeds = ", ".join(map(str, sorted(group.seed.unique())))
        setting = Setting(**dict(zip(HOW, how, strict=True)))
        few = f", at most {setting.per_class} pictures of a class" if setting.per_class else ""
        what = f"{setting.benchmark}, {setting.image_size} pixels{few}; {setting.finetune_steps}"
        parts.append(
            f"{what} steps of fine-tuning, {setting.adapt_steps} on ξ at "
            f"{setting.learning_rate:g}; seeds {seeds}\n"
        )
        table = [["method", "statistics", "passes", *targets, "mean"]]
        table.append(["---", "---", *["--:"] * (len(targets) + 2)])
        by_method = [rows for _, rows in group.groupby(["method", "statistics"], sort=False)]
        for rows in sorted(by_method, key=_experts_first):
            by_target = [rows.accuracy[rows.target == target] for target in targets]
            whole = all(map(len, by_target))
            mean = f"{np.mean([one.mean() for one in by_target]):.1f}" if whole else NONE
            row = rows.iloc[0]
            known = [row.method, row.statistics, str(row.passes)]
            table.append([*known, *map(_spread, by_target), mean])
        parts.append("".join(f"| {' | '.join(row)} |\n" for row in table))
    return "\n".join(parts)


def _experts_first(rows: Any) -> tuple[bool, str, str]:
    """Sorts experts by statistics and name before all others, which stay as they are."""
    row = rows.iloc[0]
    expert = row.method.startswith("expert ")
    return (False, row.statistics, row.method) if expert else (True, "", "")


def _spread(accuracies: pd.Series) -> str:
    if accuracies.empty:
        return NONE
    deviation = f" ± {accuracies.std():.1f}" if len(accuracies) > 1 else ""
    return f"{accuracies.mean():.1f}{deviation}"


@click.command()
@study_options("compose", seeds=(0,), runs=runs_of("compose"))
@click.option("--benchmark", type=click.Choice(BENCHMARKS), default=BENCHMARKS[0])
@click.option("--image-size", type=IMAGE_SIZE, default=RECIPE.image_size)
@click.option("--finetune-steps", type=STEPS, default=RECIPE.num_steps)
@click.option("--adapt-steps", type=STEPS, default=DIRECTED.steps["mixture_weights"])
@click.option("--learning-rate", type=float, default=DIRECTED.rates["mixture_weights"])
@click.option("--per-class", type=click.IntRange(min=0), default=0, help="Most pictures; 0: all.")
def main(
    runs: Path, results: Path, data: Path | None, seeds: tuple[int, ...], processes: int,
    **options: Any,
) -> None:  # fmt: skip
    """Fine-tune an expert on each domain, compose, adapt; write rows and the table."""
    setting = Setting(**options)
    with users_mistakes():
        chosen, *_ = load_pictures(
            setting.benchmark, data, per_class=setting.per_class or None,
            image_size=setting.image_size,
        )  # fmt: skip
        domains, names = chosen.domains, chosen.class_names
        runs, file = runs.absolute(), results / ROWS
        jobs = [*product(domains, seeds)]
        run_grid(train_expert, jobs, (domains, names, setting, runs), processes=processes)
        run_grid(
            measure_target, jobs, (domains, setting, runs, file.absolute()), processes=processes
        )
        with replacing(results / "table.md") as temporary:
            temporary.write_text(markdown(read_lines(file)), encoding="utf-8")
    click.echo(f"wrote {results / 'table.md'}")


if __name__ == "__main__":
    main()
