"""Runs backbones and cells of a benchmark; finished ones are skipped."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapters.adapt import adapted
from adapters.config import BASELINES
from benchmarks.harness import measure
from benchmarks.harness.grid import run_grid
from benchmarks.harness.oracle import train_oracle
from benchmarks.harness.plan import TRAINED, BackboneJob, Cell, without_what_is_off
from benchmarks.harness.rows import ResultRow, append_row, cell, read_rows
from benchmarks.harness.starts import Starts
from benchmarks.harness.watch import Training, Watch, watched
from da_compose import (
    Backbone,
    CompositionalNetwork,
    Domain,
    load_backbone,
    probabilities,
    save_adapter,
)
from da_compose.images import ImageSet
from da_compose.inference import predict_logits
from da_compose.progress import remark
from da_compose.storage.backbone import saved_fingerprint
from da_compose.training.pretrain import train_backbone
from da_compose.training.pretrained import finetune_backbone
from da_compose.training.run import discard_state
from data_prep.alone import alone_in

BACKBONE = "backbone.safetensors"
SELECTION = (
    "start and blend of statistics by what two views of the images agree on and by the accuracy "
    "that a rehearsal expects, "
    "iterate by information beside the start's class frequencies (nats), how much of it by the "
    "number of images and by the guard; on unlabelled training images of the target"
)


@dataclass(frozen=True)
class Splits:
    """Training and test split of one domain."""

    train: ImageSet
    test: ImageSet


def run_jobs(
    jobs: Iterable[BackboneJob],
    domains: Mapping[str, Splits],
    *,
    runs: Path,
    results: Path,
    processes: int,
    strategies: tuple[str, ...],
    oracles: bool,
    device: str,
    backend: str = "loky",
    scheduler: str | None = None,
    seen: Callable[[Sequence[dict[str, Any]]], None] | None = None,
) -> None:
    """Pretrain and adapt in one-thread processes, a backbone each at a time; see `run_grid`.

    One thread a process: two processes of several threads each slow one another down (they spin
    while they wait), by 20 to 50 times on two cores. Bounds come after all methods.
    seen: is given new rows, as JSON has them, soon after they are written.
    """
    rows, parts, bounds, trainings = read_rows(results), [], [], {}
    for job in jobs:
        todo, folder = unfinished(job, job.cells(strategies, oracles), runs, rows), job.folder(runs)
        if not todo:
            remark(f"{job.title}: finished earlier")
        elif not (folder / BACKBONE).exists():
            trainings[folder] = Training.of(job, folder)
        parts.append((job, [one for one in todo if not one.oracle]))
        bounds.append((job, [one for one in todo if one.oracle]))
    parts = [(job, cells) for job, cells in (*parts, *bounds) if cells]
    if not parts:
        return
    steps = [job.adapt_steps(one.trains) for job, cells in parts for one in cells]
    cost = sum(steps) / len(steps)
    watch = Watch([*trainings.values()], len(steps), cost, results, seen or (lambda _: None))
    shared = (domains, runs.absolute(), results.absolute(), device)  # they may be elsewhere
    with watched("benchmark", watch):
        run_grid(
            run_backbone, parts, shared, processes=processes, backend=backend, scheduler=scheduler
        )


def unfinished(
    job: BackboneJob, cells: Iterable[Cell], runs: Path, rows: Iterable[ResultRow]
) -> list[Cell]:
    """The cells of a backbone that have no row.

    Rows of another backbone do not count, such as those a clone comes with: what is trained here
    differs from it, as numbers depend on the processor.
    """
    finished = {
        cell(vars(row)): (without_what_is_off(row.config.get("job")), row.config.get("backbone"))
        for row in rows
    }
    trained = fingerprint_in(job.folder(runs))
    return [
        c for c in cells
        if finished.get(cell(naming(job, c))) != (job.cell_config(c.trains), trained)
    ]  # fmt: skip


def run_backbone(
    part: tuple[BackboneJob, list[Cell]],
    domains: Mapping[str, Splits],
    runs: Path,
    results: Path,
    device: str,
) -> None:
    """One backbone and some of its cells, in this process; what is finished is not done again."""
    torch.set_num_threads(1)
    job, cells = part
    todo, folder = unfinished(job, cells, runs, read_rows(results)), job.folder(runs)
    if not todo:
        return
    backbone = prepare_backbone(job, domains, folder, device)
    target = domains[job.target]
    starts = Starts(backbone, target.train.images, job.seed)
    baselines = {
        strategy: run_cell(job, Cell(strategy=strategy, trains="nothing"), starts, target, folder)
        for strategy in BASELINES
    }
    against = {strategy: outcome.accuracy for strategy, outcome in baselines.items()}
    for planned in todo:
        outcome = baselines.get(planned.strategy)
        if outcome is None:
            outcome = run_cell(job, planned, starts, target, folder)
        append_row(results, row_of(job, planned, backbone, outcome, against))


def fingerprint_in(folder: Path) -> str:
    """The fingerprint of the backbone in a folder of runs; none where it is still to be trained."""
    path = folder / BACKBONE
    return saved_fingerprint(path) if path.exists() else "none"


def prepare_backbone(
    job: BackboneJob, domains: Mapping[str, Splits], folder: Path, device: str
) -> Backbone:
    """The job's backbone from its folder, or pretrained now; an interrupted training goes on."""
    path = folder / BACKBONE
    with alone_in(folder):  # both networks of a pretrained recipe have one folder
        if path.exists():
            discard_state(folder)  # of a run that was killed right after it wrote the backbone
            return load_backbone(path, device)
        remark(f"{folder.name}: pretraining, log in {folder}")
        return _train(job, {n: domains[n] for n in job.sources}, path, device)


def _train(job: BackboneJob, sources: Mapping[str, Splits], path: Path, device: str) -> Backbone:
    """Train the job's backbone in the folder of `path`, and write it there.

    It rehearses on test splits of the sources, or on what its recipe holds out of fine-tuning.
    """
    train = {name: splits.train for name, splits in sources.items()}
    options: dict[str, Any] = {
        "notes": job.identity | {"recipe": job.recipe},
        "knowledge_images": job.profile.knowledge_images,
    }
    if job.pretrained is not None:
        return finetune_backbone(
            job.pretrained, train, job.class_names, path,
            steps=job.finetune_steps, seed=job.seed, device=device, **options,
        )  # fmt: skip
    network = CompositionalNetwork(job.network_config, seed=job.seed).to(device)
    config = replace(job.pretrain_config, bfloat16=network.device.type == "cuda")
    options["held_out"] = {name: splits.test for name, splits in sources.items()}
    return train_backbone(network, train, config, job.class_names, path, **options)


@dataclass(frozen=True)
class Outcome:
    """What was measured of one cell."""

    accuracy: float  # percent on the target's test split
    last_accuracy: float  # of the last iterate
    learned_parameters: int
    total_parameters: int
    adapter_bytes: int
    spent: measure.Measurement
    device: str
    notes: dict[str, Any]  # what the adaptation chose


def run_cell(
    job: BackboneJob, planned: Cell, starts: Starts, target: Splits, folder: Path
) -> Outcome:
    """Adapt and test one cell. The adaptation sees the target's training images, no labels."""
    backbone, steps = starts.backbone, job.adapt_steps(planned.trains)
    if planned.oracle:
        with measure.measured() as spent:
            backbone, domain, learned = train_oracle(
                backbone, target.train, planned.trains, steps=steps, seed=job.seed
            )
        last, notes = domain, {"strategy": "oracle", "learned_parameters": learned}
    else:
        trains = planned.trains if planned.trains != "nothing" else TRAINED[job.network]
        ready, before = starts.ready(planned.strategy, trains, steps)
        with measure.measured() as spent:
            adaptation = adapted(ready)
        spent = spent.after(before)
        domain, learned = adaptation.domain, adaptation.learned_parameters
        last, notes = adaptation.last or domain, adaptation.notes
    if planned.trains == "all":
        adapter_bytes = 4 * learned  # no adapter file holds a whole network: its float32 weights
    else:
        adapter = folder / f"{planned.strategy}-{planned.trains}.safetensors"
        save_adapter(adapter, backbone, domain, notes)
        adapter_bytes = adapter.stat().st_size
    parameters = (*backbone.network.shared_parameters(), *domain.parameters())
    return Outcome(
        accuracy=accuracy(backbone, domain, target.test),
        last_accuracy=accuracy(backbone, last, target.test),
        learned_parameters=learned,
        total_parameters=sum(parameter.numel() for parameter in parameters),
        adapter_bytes=adapter_bytes,
        spent=spent,
        device=measure.device_name(backbone.network.device),
        notes=notes,
    )


def row_of(
    job: BackboneJob,
    planned: Cell,
    backbone: Backbone,
    outcome: Outcome,
    baselines: Mapping[str, float],
) -> ResultRow:
    """The result row of a finished cell."""
    return ResultRow(
        **naming(job, planned),
        accuracy=outcome.accuracy,
        last_accuracy=outcome.last_accuracy,
        source_only=baselines["source_only"],
        batch_norm=baselines["batch_norm"],
        learned_parameters=outcome.learned_parameters,
        total_parameters=outcome.total_parameters,
        adapter_bytes=outcome.adapter_bytes,
        seconds=round(outcome.spent.seconds, 2),
        peak_memory_mb=round(outcome.spent.peak_memory_mb, 1),
        selection=_selection(planned),
        commit=measure.commit(),
        device=outcome.device,
        versions=measure.versions(),
        config={
            "job": job.cell_config(planned.trains),
            "backbone": backbone.fingerprint,
            "adaptation": outcome.notes,
        },
    )


def _selection(planned: Cell) -> str:
    """What was chosen in a cell, and by what."""
    if planned.oracle:
        return "target labels"
    return "none" if planned.strategy in BASELINES else SELECTION


def accuracy(backbone: Backbone, domain: Domain, test: ImageSet) -> float:
    """Percent of a test split that is classified rightly."""
    predicted = probabilities(predict_logits(backbone.network, domain, test.images)).argmax(dim=1)
    return 100 * float((predicted.numpy() == test.labels).mean())


def naming(job: BackboneJob, planned: Cell) -> dict[str, Any]:
    """The fields of a result row that say which cell it is."""
    return {
        "benchmark": job.benchmark.name,
        "profile": job.profile.name,
        "data": job.data,
        "data_fingerprint": job.data_fingerprint,
        "sources": list(job.sources),
        "target": job.target,
        "seed": job.seed,
        "strategy": planned.strategy,
        "trains": planned.trains,
        "network": job.network,
        "recipe": job.recipe,
        "oracle": planned.oracle,
    }
