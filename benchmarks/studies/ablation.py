"""What each part of `adapt`'s default is worth: `python -m benchmarks.studies.ablation`.

The full profile's digits backbones adapted by information maximization to targets as users have
them, with one part switched off at a time, and with all of them. Test labels are looked at
afterwards; nothing is chosen here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch
from torch import Tensor

from adapters import adapt
from adapters.config import BASELINES, AdaptConfig
from adapters.guard import judge_learning
from adapters.loop import Run, learn, prepare
from adapters.start import plain_start_name
from adapters.strategies.information_maximization import InformationMaximization
from benchmarks.harness import measure
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.plan import TRAINED, BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import SIDES
from benchmarks.studies.guard import TARGETS, images_of
from benchmarks.studies.study import backbone_options, run_on_targets, study_options
from da_compose import Backbone
from da_compose.images import ImageSet
from da_compose.inference import predict_logits

CONDITIONS = ("all", "tiny-30", "10 to 1")  # of `benchmarks.studies.guard`
AS_IT_IS = "as it is"
EQUAL = "equal class frequencies, not the start's"
WHOLE = "all of the way, however few the images"
LAST = "the last iterate, not the most informative"
UNGUARDED = "no guard"
FOUR = "these four together"
PLAIN = "plain start, only its blend of statistics chosen"
START = "nothing learned"
VARIANTS = (AS_IT_IS, EQUAL, WHOLE, LAST, UNGUARDED, FOUR, PLAIN, START)
GROUP = ["recipe", "network"]
IDENTITY = [*GROUP, "seed", "target", "condition", "variant"]
CAPTION = """Test-split accuracy in percent by how the target's images are drawn, mean over targets
and seeds; in parentheses the least of all cells over the better of source only and AdaBN (points).
Information maximization from the chosen start, as by default, without one part at a time. MW:
mixture weights of the compositional network; IA: input adapter of the unshared network.
"""


def run_backbone(
    job: BackboneJob, sources: Mapping[str, Splits], targets: Mapping[str, Splits],
    runs: Path, results: Path,
) -> None:  # fmt: skip
    """Every unfinished target and condition on one backbone, in this process."""
    torch.set_num_threads(1)
    finished = {identity(line) for line in read_lines(results)}
    backbone = prepare_backbone(job, sources, job.folder(runs), "cpu")
    naming = {"recipe": job.recipe, "network": job.network, "seed": job.seed}
    for target, splits in targets.items():
        for condition in CONDITIONS:
            cell: dict[str, Any] = {**naming, "target": target, "condition": condition}
            if all(identity(cell | {"variant": variant}) in finished for variant in VARIANTS):
                continue
            images, test = images_of(splits, condition, job.seed)
            baselines = {
                name: accuracy(backbone, adapt(backbone, images, name, seed=job.seed).domain, test)
                for name in BASELINES
            }
            trains = TRAINED[job.network]
            config = AdaptConfig(
                trains=trains, steps=job.adapt_steps(trains), seed=job.seed, guard=False
            )
            for variant, found in measured(backbone, images, test, config):
                line = cell | {"variant": variant, "accuracy": found, **baselines}
                append_line(results, line | {"commit": measure.commit()})
                print(line, flush=True)


def measured(
    backbone: Backbone, images: Any, test: ImageSet, config: AdaptConfig
) -> Iterator[tuple[str, float]]:
    """Every variant and its accuracy. What is only kept differently is learned once."""
    run = prepare(backbone, images, "target", config)
    yield START, accuracy(backbone, run.target, test)
    drawn = run.draws.get_state()
    learn(run, InformationMaximization)
    share = run.notes["kept_share"]
    best, last = run.kept, last_values(run)
    yield AS_IT_IS, ended(run, best, share, test)
    yield WHOLE, ended(run, best, 1.0, test)
    yield LAST, ended(run, last, share, test)
    yield UNGUARDED, ended(run, best, share, test, guard=False)
    run.restart(config.strategy)
    run.draws.set_state(drawn)
    run.expected = torch.full_like(run.expected, 1 / len(run.expected))
    learn(run, InformationMaximization)
    yield EQUAL, ended(run, run.kept, share, test)
    yield FOUR, ended(run, last_values(run), 1.0, test, guard=False)
    run = prepare(backbone, images, "target", replace(config, start=plain_start_name(backbone)))
    learn(run, InformationMaximization)
    yield PLAIN, ended(run, run.kept, share, test)


def last_values(run: Run) -> list[Tensor]:
    """What was trained, as the last step left it."""
    assert run.last is not None
    last = dict(run.last.named_parameters())
    trained = {id(parameter) for parameter in run.trained}
    return [last[name].detach() for name, p in run.target.named_parameters() if id(p) in trained]


def ended(
    run: Run, values: list[Tensor], share: float, test: ImageSet, *, guard: bool = True
) -> float:
    """Accuracy where this share of the way to the values is kept, or none where the guard says."""
    run.kept = values
    run.keep(share)
    if guard:
        kept = predict_logits(run.backbone.network, run.target, run.checked)
        if not judge_learning(run.start, kept).trusted:
            run.keep(0.0)
    return accuracy(run.backbone, run.target, test)


def identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a line is the result of."""
    return tuple(line[name] for name in IDENTITY)


def markdown(lines: Iterable[Mapping[str, Any]]) -> str:
    """A row for every variant, a column for every condition; a table a recipe and network."""
    frame = pd.DataFrame(list(lines)).drop_duplicates(IDENTITY, keep="last")
    frame["over"] = frame.accuracy - frame[list(BASELINES)].max(axis=1)
    blocks = []
    for _, own in frame.groupby(GROUP):
        first, seeds = own.iloc[0], ", ".join(map(str, sorted(own.seed.unique())))
        conditions = [name for name in CONDITIONS if name in set(own.condition)]
        table = [["", *conditions], ["---", *["--:"] * len(conditions)]]
        for variant in VARIANTS:
            of = [own[(own.variant == variant) & (own.condition == name)] for name in conditions]
            shown = [f"{cells.accuracy.mean():.1f} ({cells.over.min():+.1f})" for cells in of]
            table.append([variant, *shown])
        targets = ", ".join(name for name in TARGETS if name in set(own.target))
        title = f"{SIDES[first.network]}, recipe {first.recipe}; {targets}; seeds {seeds}."
        blocks.append(title + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in table))
    return CAPTION + "\n" + "\n\n".join(blocks) + "\n"


@click.command()
@study_options("ablation")
@backbone_options(TARGETS)
def main(**options: Any) -> None:
    """Adapt the digits backbones without a part of the default at a time; write rows and table."""
    run_on_targets(run_backbone, markdown, **options)


if __name__ == "__main__":
    main()
