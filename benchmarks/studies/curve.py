"""Accuracy against how many numbers learn: `python -m benchmarks.studies.curve`.

On the backbones of PACS from 1 to 16 directions a layer are learned from the same mock domains;
beside them random directions as long, the input adapter, and all of gamma and beta. Each learns
from the same start without labels and, as a bound, with them.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import click
import pandas as pd
import torch
from matplotlib.figure import Figure

from adapters import AdaptConfig
from adapters.adapt import adapted
from adapters.labelled import fit_labelled
from adapters.parts import DIRECTED, unlock
from adapters.prepare import prepare
from benchmarks.harness import measure
from benchmarks.harness.cells import Splits, accuracy, prepare_backbone
from benchmarks.harness.folders import ROWS, runs_of
from benchmarks.harness.grid import run_grid
from benchmarks.harness.oracle import RATES
from benchmarks.harness.picture_benchmarks import PICTURES, at_size, load_pictures
from benchmarks.harness.plan import BackboneJob
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.options import STEPS, users_mistakes
from benchmarks.reports.plots import DPI, save_figure
from benchmarks.reports.tables import GUIDE
from benchmarks.studies.study import study_options
from da_compose import Backbone, load_backbone
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.storage.files import replacing
from da_compose.training.directions import DirectionsConfig, learn_templates
from da_compose.training.pretrained import PRETRAINED_RECIPES, held_for_rehearsal
from da_compose.training.sampling import seeded

RECIPE = "lite0"
TARGETS = ("art_painting", "sketch")  # development targets
COUNTS = (1, 2, 4, 8, 16)  # directions a layer
USUAL = 4
LEARNED, RANDOM = "ξ", "ξ of random directions"
KEYS = ["target", "seed", "steps", "what", "directions"]
HOW = {
    "start": "start",
    "kept": "without labels",
    "last": "without the guard",
    "labels": "*with labels*",
}
CAPTION = f"""Test accuracy in percent, mean over targets and seeds, of what learns from one start:
without labels (the consensus of the starts), as the guard keeps it and after the last step, and
with the target's labels, as a bound.
{GUIDE}
"""


@dataclass(frozen=True)
class Variant:
    """Some numbers of a backbone that learn, of a network with so many directions a layer."""

    what: str
    trains: str
    directions: int = USUAL

    def of(self, wide: Backbone, seed: int) -> Backbone:
        """The backbone with these directions alone; `wide` has all."""
        network = wide.network
        assert isinstance(network, PretrainedNetwork)
        directions = network.templates.directions[: self.directions]
        if self.what == RANDOM:
            directions = as_long(directions, network.templates.layers, seed)
        return replace(wide, network=network.with_directions(directions))


VARIANTS = (
    *(Variant(LEARNED, "mixture_weights", count) for count in COUNTS),
    Variant(RANDOM, "mixture_weights"),
    Variant("input adapter", "input_adapter"),
    Variant("γ, β", "batch_norm"),
)


def as_long(directions: torch.Tensor, layers: torch.Tensor, seed: int) -> torch.Tensor:
    """Random directions (K, n), in each layer as long as the given ones."""
    drawn = torch.randn(directions.shape, generator=seeded(seed, 5))
    for layer in layers.unique():
        here = layers == layer
        lengths = directions[:, here].norm(dim=1, keepdim=True)
        drawn[:, here] *= lengths / drawn[:, here].norm(dim=1, keepdim=True)
    return drawn


def wide_backbone(job: BackboneJob, domains: Mapping[str, Splits], runs: Path) -> Backbone:
    """The job's backbone with as many directions as the longest count, learned where need be."""
    folder = job.folder(runs)
    path, recipe = folder / "curve" / "wide.safetensors", PRETRAINED_RECIPES[RECIPE]
    if path.exists():
        return load_backbone(path)
    backbone = prepare_backbone(job, domains, folder, "cpu")
    train = {name: domains[name].train for name in job.sources}
    sources, _ = held_for_rehearsal(train, len(backbone.class_names), recipe.held_out, job.seed)
    config = DirectionsConfig(templates=max(COUNTS), seed=job.seed)
    wide = learn_templates(backbone, sources, config, path.parent / "mock-domains")
    wide.save(path)
    return wide


def measure_target(
    job: BackboneJob, domains: Mapping[str, Splits], runs: Path, steps: int, results: Path
) -> None:
    """All lines of a target and seed that are not there, in this process."""
    torch.set_num_threads(1)
    wide, target = wide_backbone(job, domains, runs), domains[job.target]
    cell = {"target": job.target, "seed": job.seed, "steps": steps}
    for variant in VARIANTS:
        about = cell | {"what": variant.what, "directions": variant.directions}
        if any(about.items() <= line.items() for line in read_lines(results)):
            continue
        backbone = variant.of(wide, job.seed)
        line = outcomes(backbone, target, variant.trains, steps, job.seed)
        append_line(results, about | line | {"commit": measure.commit()})
        print(about | line, flush=True)


def outcomes(
    backbone: Backbone, target: Splits, trains: str, steps: int, seed: int
) -> dict[str, Any]:
    """Test accuracies, in percent, of what learns from one start: without labels, and with them."""
    config = AdaptConfig(strategy="consensus", trains=trains, steps=steps, seed=seed)
    ready = prepare(backbone, target.train.images, "target", config)
    free = adapted(ready)
    domain = deepcopy(ready.target)
    trained = unlock(backbone.network, domain, trains)
    fit_labelled(
        backbone.network, domain, trained, target.train, steps=steps, rate=RATES[trains],
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    models = {
        "start": ready.target,
        "kept": free.domain,
        "last": free.last or free.domain,
        "labels": domain,
    }
    found = {how: accuracy(backbone, model, target.test) for how, model in models.items()}
    return {"numbers": free.learned_parameters} | found


def means(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for what learns: means over targets and seeds."""
    frame = pd.DataFrame(list(lines)).drop_duplicates(KEYS, keep="last")
    grouped = frame.groupby(["what", "numbers"], sort=False, as_index=False)
    return cast(pd.DataFrame, grouped[[*HOW]].mean())


def about(lines: Iterable[Mapping[str, Any]]) -> str:
    """Targets, seeds and steps of some lines."""
    frame = pd.DataFrame(list(lines))[["target", "seed", "steps"]]
    return "; ".join(f"{key}: {', '.join(map(str, sorted(set(frame[key]))))}" for key in frame)


def markdown(lines: Iterable[Mapping[str, Any]]) -> str:
    """The means as a table."""
    lines = list(lines)
    rows = [["what learns", "numbers", *HOW.values()], ["---", *["--:"] * (len(HOW) + 1)]]
    for row in means(lines).to_dict("records"):
        rows.append([row["what"], f"{row['numbers']:,}", *(f"{row[how]:.1f}" for how in HOW)])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return "\n".join((CAPTION, f"pacs, ImageNet weights; {about(lines)}\n", table))


def plot(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Mean accuracy against numbers that learn; PNG."""
    lines = list(lines)
    found = means(lines)
    figure = Figure(figsize=(7, 4), dpi=DPI, layout="constrained")
    panel = figure.subplots()
    panel.axhline(found.start.mean(), color="0.5", linestyle=":", label=HOW["start"])
    learned, others = found.what == LEARNED, [v.what for v in VARIANTS if v.what != LEARNED]
    for how, colour in (("kept", "tab:blue"), ("labels", "tab:green")):
        said = HOW[how].strip("*")
        panel.plot(
            found.numbers[learned], found[how][learned], "o-", color=colour, label=f"ξ, {said}"
        )
        for what, marker in zip(others, "xs^", strict=True):
            one = found.what == what
            panel.plot(
                found.numbers[one], found[how][one], marker, color=colour, label=f"{what}, {said}"
            )
    panel.set(xscale="log", xlabel="Numbers that learn", ylabel="Test accuracy (%)")
    panel.grid(color="0.9")
    panel.legend(fontsize=7, ncols=2)
    save_figure(figure, path, f"pacs, ImageNet weights; {about(lines)}")


def render(folder: Path) -> None:
    """Table and picture of all lines in a folder."""
    lines = read_lines(folder / ROWS)
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(markdown(lines), encoding="utf-8")
    plot(lines, folder / "curve.png")


@click.command()
@study_options("curve", seeds=(0,), runs=runs_of("pacs"))
@click.option("--target", "targets", multiple=True, default=TARGETS)
@click.option("--steps", type=STEPS, default=DIRECTED.steps["mixture_weights"])
def main(
    runs: Path, results: Path, data: Path | None, seeds: tuple[int, ...], processes: int,
    targets: tuple[str, ...], steps: int,
) -> None:  # fmt: skip
    """Learn different numbers of each PACS backbone; write rows, the table and a picture."""
    size = PRETRAINED_RECIPES[RECIPE].image_size
    with users_mistakes():
        benchmark = at_size(PICTURES["pacs"], size)
        profile = replace(benchmark.profiles["full"], seeds=seeds)
        rotations = [load_pictures("pacs", data, target, image_size=size)[0] for target in targets]
        jobs = [
            job
            for one in rotations
            for job in one.jobs(benchmark, profile, (RECIPE,), ("compositional",))
        ]
        shared = (rotations[0].domains, runs.absolute(), steps, (results / ROWS).absolute())
        run_grid(measure_target, jobs, shared, processes=processes)
        render(results)
    click.echo(f"wrote {results / 'table.md'}")


if __name__ == "__main__":
    main()
