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

from adapters import adapt
from adapters.config import BASELINES, AdaptConfig
from adapters.guard import judge_learning
from adapters.loop import learn
from adapters.prepare import Ready, prepare
from adapters.strategies.information_maximization import InformationMaximization
from benchmarks.harness import measure
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.plan import TRAINED, BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import GUIDE, SIDES
from benchmarks.studies.guard import TARGETS, images_of
from benchmarks.studies.study import backbone_options, run_on_targets, study_options
from da_compose import Backbone, Domain
from da_compose.images import ImageSet
from da_compose.inference import predict_logits
from da_compose.starts import plain_start_name
from da_compose.statistics import shrunk_share

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
CAPTION = f"""Test accuracy in percent by how the target's images are drawn, mean over targets and
seeds; in parentheses the least of all cells over the better of source only and AdaBN (points).
{GUIDE}
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
    ready = prepare(backbone, images, "target", config)
    yield START, accuracy(backbone, ready.target, test)
    share = shrunk_share(len(ready.pixels), config.prior_images)
    found = learn(ready, InformationMaximization())
    yield AS_IT_IS, ended(ready, found.between(share), test)
    yield WHOLE, ended(ready, found.between(1.0), test)
    yield LAST, ended(ready, found.between(share, found.last), test)
    yield UNGUARDED, accuracy(backbone, found.between(share), test)
    equal = torch.full_like(ready.expected, 1 / len(ready.expected))
    found = learn(ready, InformationMaximization(), expected=equal)
    yield EQUAL, ended(ready, found.between(share), test)
    yield FOUR, accuracy(backbone, found.between(1.0, found.last), test)
    ready = prepare(backbone, images, "target", replace(config, start=plain_start_name(backbone)))
    found = learn(ready, InformationMaximization())
    yield PLAIN, ended(ready, found.between(share), test)


def ended(ready: Ready, domain: Domain, test: ImageSet) -> float:
    """Accuracy of what was learned, or of the start where the guard does not trust it."""
    kept = predict_logits(ready.backbone.network, domain, ready.checked)
    trusted = judge_learning(ready.logits, kept, certain=ready.certain).trusted
    return accuracy(ready.backbone, domain if trusted else ready.target, test)


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
