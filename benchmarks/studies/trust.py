"""May it be trusted? Estimates, starts and the guard, beside the truth.

`python -m benchmarks.studies.trust` pretrains backbones as a user would (`da_compose.pretrain`),
adapts them as usual to targets as users have them, and looks at test labels afterwards:
what was estimated, what the choice of the start cost, what the guard let through. Limits were made
on the digits and pictures marked as development; the other data sets are held out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters import AdaptConfig, adapt
from adapters.adapt import conclude, strategy_of, unlearned
from adapters.config import BASELINES, OUTCOME, UNLEARNED
from adapters.loop import learn
from adapters.prepare import Ready, prepare
from benchmarks.harness import measure
from benchmarks.harness.cells import accuracy
from benchmarks.harness.folders import ROWS, runs_of
from benchmarks.harness.grid import run_grid
from benchmarks.harness.picture_benchmarks import PICTURE_NETWORK, load_pictures
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.options import users_mistakes
from benchmarks.studies.conditions import (
    CONDITIONS,
    SOURCE,
    STRANGERS,
    TASK,
    Condition,
    nothing_but,
    with_strangers,
)
from benchmarks.studies.study import study_options
from benchmarks.studies.trust_table import GUARDED, render
from da_compose import Backbone, pretrain
from da_compose.images import ImageSet
from da_compose.training.pretrained import PRETRAINED_RECIPES
from data_prep import PreparedDomain, load_digit_domain, load_task

STEPS, MOST_IMAGES, TEST_IMAGES = 300, 600, 500
KEYS = ("backbone", "target", "condition")


@dataclass(frozen=True)
class Setting:
    """A backbone of the study: its data, its sources, its targets."""

    kind: str  # digits, or a benchmark of pictures
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    development: bool
    pretrained: bool = False  # on ImageNet weights, as pictures are by default; else from scratch

    @property
    def recipe(self) -> str:
        if self.pretrained:
            return "lite0"
        return "digits-strong" if self.kind == "digits" else "strong"

    @property
    def steps(self) -> int | None:
        """Of pretraining; None: the recipe's."""
        return None if self.pretrained else STEPS

    def load(self, data: Path | None) -> dict[str, PreparedDomain]:
        """All domains, prepared."""
        if self.kind == "digits":
            names = (*self.sources, *self.targets)
            return {name: load_digit_domain(name, data_root=data) for name in names}
        return self._pictures(self.kind, self.targets[0], data)

    def strangers(self, data: Path | None) -> NDArray[np.uint8]:
        """Images of nothing that the sources have: letters, or pictures of another benchmark."""
        if self.kind == "digits":
            return load_task("emnist_letters", data_root=data).train.images
        kind, one = ("satellite", "ucm") if self.kind == "pacs" else ("pacs", "photo")
        return self._pictures(kind, one, data)[one].train.images

    def _pictures(self, kind: str, target: str, data: Path | None) -> dict[str, PreparedDomain]:
        size = PICTURE_NETWORK.image_size
        if self.pretrained:
            size = PRETRAINED_RECIPES[self.recipe].image_size
        return load_pictures(kind, data, target=target, image_size=size)[0].prepared


def in_turn(kind: str, *domains: str, development: bool) -> dict[str, Setting]:
    """Each domain the target of the others, from scratch and on ImageNet weights."""
    return {
        f"{kind}-{one}{'-lite0' if pretrained else ''}": Setting(
            kind, tuple(name for name in domains if name != one), (one,), development, pretrained
        )
        for pretrained in (False, True)
        for one in domains
    }


SETTINGS: Mapping[str, Setting] = {
    "digits-real": Setting("digits", ("usps", "meter", "mnist"), ("mnist_m", "optdigits"), True),
    "digits-mixed": Setting("digits", ("mnist_m", "optdigits", "meter"), ("mnist", "usps"), True),
    **in_turn("pacs", "art_painting", "cartoon", "photo", "sketch", development=True),
    **in_turn("satellite", "aid", "rsscn7", "ucm", development=False),
    "digits-signs": Setting("digits", ("mnist", "usps", "meter"), ("printed", "street"), False),
    **{
        name: setting
        for name, setting in in_turn(
            "emoji", "twemoji", "openmoji", "noto_line", development=True
        ).items()
        if name.startswith("emoji-noto_line")
    },
}


def run_setting(name: str, data: Path | None, runs: Path, results: Path) -> None:
    """Every unfinished cell on one backbone, in this process."""
    torch.set_num_threads(1)
    setting = SETTINGS[name]
    finished = {identity(line) for line in read_lines(results)}
    domains = setting.load(data)
    sources = {source: domains[source].train for source in setting.sources}
    backbone = pretrain(
        {source: (found.images, found.labels) for source, found in sources.items()},
        out=runs / name, recipe=setting.recipe, steps=setting.steps, show_progress=False,
    )  # fmt: skip
    strangers = setting.strangers(data)
    conditions = {
        **CONDITIONS,
        STRANGERS: partial(with_strangers, strangers=strangers),
        TASK: partial(nothing_but, strangers=strangers),
    }
    for target in setting.targets:
        for condition, take in conditions.items():
            domain = domains[setting.sources[0] if condition == SOURCE else target]
            cell = {"backbone": name, "target": target, "condition": condition}
            if identity(cell) in finished:
                continue
            line = measure_cell(backbone, domain, take)
            line |= {"development": setting.development, "pretrained": setting.pretrained}
            append_line(results, cell | line | {"commit": measure.commit()})
            print(cell | line["accuracy"], flush=True)


def identity(line: Mapping[str, Any]) -> str:
    """What a line is the result of."""
    return json.dumps([line[key] for key in KEYS])


def measure_cell(backbone: Backbone, domain: PreparedDomain, take: Condition) -> dict[str, Any]:
    """True and estimated accuracies of one cell, shares from 0 to 1, and what the guard says.

    It says nothing (no `verdict`) where by default nothing is learned.
    """
    generator = np.random.default_rng(0)
    found = take(domain.train, generator)
    images = found.images if isinstance(found, ImageSet) else found
    images = images[generator.permutation(len(images))[:MOST_IMAGES]]
    test = domain.test
    if isinstance(found, ImageSet):  # the target has no other classes
        kept = np.isin(test.labels, np.unique(found.labels))
        test = ImageSet(test.images[kept], test.labels[kept])
    chosen = generator.permutation(len(test))[:TEST_IMAGES]
    test = ImageSet(test.images[chosen], test.labels[chosen])
    ready = prepare(backbone, images, "target", AdaptConfig())
    if ready.config.method in UNLEARNED:  # as by default on pretrained networks
        learned, kept = {}, unlearned(ready)
        guarded = kept
    else:
        steps = learn(ready, strategy_of(ready.config.method))
        kept, guarded = conclude(without_guard(ready), steps), conclude(ready, steps)
        learned = {"verdict": guarded.notes["guard"]}
    models = {name: adapt(backbone, images, name).domain for name in BASELINES}
    models |= {"start": ready.target, OUTCOME: kept.domain, GUARDED: guarded.domain}
    measured = {id(one): accuracy(backbone, one, test) / 100 for one in models.values()}
    estimates = dict(kept.notes.get("estimates", {}))
    if estimates:
        estimates[GUARDED] = guarded.notes["estimates"][OUTCOME]
    return {
        "images": len(images),
        "accuracy": {name: measured[id(model)] for name, model in models.items()},
        "estimates": estimates,
        "figures": {name: found.tolist() for name, found in ready.evidence.items()},
        "start": {key: guarded.notes[key] for key in ("start", "target_share")},
        "likeness": ready.likeness,
        "calibration_error": {
            kind: calibration_error(
                guarded.predict_proba(test.images, calibrated=kind == "calibrated"), test.labels
            )
            for kind in ("raw", "calibrated")
            if estimates
        },
    } | learned  # fmt: skip


def without_guard(ready: Ready) -> Ready:
    """The same start, of which what is learned is kept unasked."""
    return replace(ready, config=replace(ready.config, guard=False))


def calibration_error(prediction: Tensor, labels: NDArray[np.int64]) -> float:
    """Expected calibration error of predictions (M, N), ten equal bins (Guo et al. 2017)."""
    confidence, chosen = prediction.max(dim=1)
    right = (chosen.numpy() == labels).astype(float)
    place = np.minimum((10 * confidence.numpy()).astype(int), 9)
    apart = [
        abs(right[place == one].sum() - confidence.numpy()[place == one].sum()) for one in range(10)
    ]
    return float(sum(apart) / len(labels))


@click.command()
@study_options("trust", runs=runs_of("trust"), seeds=(0,))
@click.option("--setting", "settings", type=click.Choice(tuple(SETTINGS)), multiple=True)
def main(
    runs: Path, results: Path, data: Path | None, seeds: tuple[int, ...], processes: int,
    settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Measure estimates, starts and the guard; write rows, the table and a picture."""
    with users_mistakes():
        shared = (data, runs.absolute(), (results / ROWS).absolute())
        run_grid(run_setting, settings or tuple(SETTINGS), shared, processes=processes)
        render(results)
        click.echo(f"wrote {results / 'table.md'}")


if __name__ == "__main__":
    main()
