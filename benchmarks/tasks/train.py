"""The cells of the tasks benchmark: train a network once, measure each cell, append its row."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from adapters.transfer import transfer
from benchmarks.harness import measure
from benchmarks.harness.cells import BACKBONE, accuracy, fingerprint_in
from benchmarks.harness.few_labels import draw_labelled
from benchmarks.harness.rows import append_line, named_anew, read_lines
from benchmarks.tasks.plan import Cell, TaskData, TaskJob
from da_compose import Backbone, load_backbone
from da_compose.images import ImageSet, to_pixels
from da_compose.model.domain import Domain
from da_compose.model.mixture import MixtureWeights
from da_compose.model.signature import harden
from da_compose.statistics import estimate_statistics
from da_compose.training.run import STATE, discard_state
from da_compose.training.tasks import Task, parameters_behind, train_tasks
from data_prep.locations import alone_in

STATISTICS_IMAGES = 2_000  # for a hardened network
BATCH = 200


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """Outcome of one cell."""

    part: str  # signatures, depth, tasks, transfer
    profile: str
    setting: str  # of the network that was trained
    seed: int
    task: str  # it is tested on
    start: str  # of a new task, as asked for
    trains: list[str]  # of a new task
    labels: int | None  # images of each class of a new task; None: all
    data: str
    data_fingerprint: str
    accuracy: float  # percent of the test split
    total_parameters: int  # of all that this setting's tasks depend on
    seconds: float  # of training; 0: not known, as it was interrupted
    peak_memory_mb: float
    found: dict[str, Any]  # more that was measured
    commit: str
    device: str
    versions: dict[str, str]
    config: dict[str, Any]

    @property
    def cell(self) -> tuple[str, ...]:
        """What the row is the result of; equal for two runs of the same thing."""
        return tuple(str(getattr(self, name)) for name in CELL)


CELL = [field.name for field in fields(TaskRow)][:10]


def read_task_rows(folder: Path) -> list[TaskRow]:
    """The last row of each cell, in the order in which the cells first appeared."""
    rows = [TaskRow(**named_anew(line)) for line in read_lines(folder / "results.jsonl")]
    return list({row.cell: row for row in rows}.values())


def run_job(job: TaskJob, data: TaskData, runs: Path, results: Path) -> None:
    """One network and its cells, in this process; what is finished is not done again.

    Rows of another network do not count, such as those a clone comes with.
    """
    torch.set_num_threads(1)
    folder = job.folder(runs)
    todo = unfinished(job, runs, read_task_rows(results))
    if not todo:
        return
    backbone, spent = trained(job, data, folder)
    for cell in todo:
        values = measure_cell(job, cell, backbone, data, spent)
        row = TaskRow(
            **_naming(job, cell),
            **values,
            commit=measure.commit(),
            device=measure.device_name(backbone.network.device),
            versions=measure.versions(),
            config=job.config | {"backbone": backbone.fingerprint},
        )
        append_line(results / "results.jsonl", asdict(row))


def unfinished(job: TaskJob, runs: Path, rows: Iterable[TaskRow]) -> list[Cell]:
    """The cells of a job that have no row of its network."""
    finished = {row.cell: row.config for row in rows}
    wanted = job.config | {"backbone": fingerprint_in(job.folder(runs))}
    return [cell for cell in job.cells if finished.get(_key(job, cell)) != wanted]


def trained(job: TaskJob, data: TaskData, folder: Path) -> tuple[Backbone, dict[str, float]]:
    """The job's network from its folder, or trained now; and what that took."""
    path = folder / BACKBONE
    with alone_in(folder):
        if not path.exists():
            _train(job, data, path)
    backbone = load_backbone(path)
    return backbone, {name: backbone.notes[name] for name in ("seconds", "peak_memory_mb")}


def _train(job: TaskJob, data: TaskData, path: Path) -> None:
    """Train the job's network in the folder of `path`, and write it there."""
    tasks = [task_of(name, data, data.domains[name].train) for name in job.tasks]
    resumed = (path.parent / STATE).exists()
    with measure.measured() as took:
        backbone = train_tasks(
            tasks,
            job.network,
            job.pretraining,
            path.parent,
            own_batch_norm=job.own_batch_norm,
            show_progress=False,
        )
    backbone.notes["seconds"] = 0.0 if resumed else round(took.seconds, 2)
    backbone.notes["peak_memory_mb"] = round(took.peak_memory_mb, 1)
    backbone.save(path)
    discard_state(path.parent)


def task_of(name: str, data: TaskData, train: ImageSet) -> Task:
    """The task of this name on these training images."""
    return Task(name=name, train=train, class_names=data.class_names[name])


def measure_cell(
    job: TaskJob, cell: Cell, backbone: Backbone, data: TaskData, spent: dict[str, float]
) -> dict[str, Any]:
    """The measured fields of a cell's row."""
    if cell.start:
        return _measure_transfer(job, cell, backbone, data)
    network, domain = backbone.network, backbone.network.domains[cell.task]
    test = data.domains[cell.task].test
    found: dict[str, Any] = {"mixture": _rounded(domain)}
    if job.part == "signatures" and isinstance(domain.mixture, MixtureWeights):
        found["hardened_accuracy"] = hardened_accuracy(backbone, domain, data.domains[cell.task])
    return {
        "accuracy": accuracy(backbone, domain, test),
        "total_parameters": parameters_behind(network, [*network.domains]),
        "found": found,
        **spent,
    }


def _measure_transfer(
    job: TaskJob, cell: Cell, backbone: Backbone, data: TaskData
) -> dict[str, Any]:
    domain = data.domains[cell.task]
    train = domain.train
    if cell.labels is not None:
        train = ImageSet(*draw_labelled(train, cell.labels, job.seed))
    with measure.measured() as spent:
        new = transfer(
            backbone,
            task_of(cell.task, data, train),
            start=cell.start,
            trains=cell.trains,
            config=job.transfer,
        )
    found = {"start": new.start, "scores": new.scores, "learned_parameters": dict(new.learned)}
    return {
        "accuracy": accuracy(backbone, new.domain, domain.test),
        "total_parameters": parameters_behind(backbone.network, [new.domain]),
        "found": found,
        "seconds": round(spent.seconds, 2),
        "peak_memory_mb": round(spent.peak_memory_mb, 1),
    }


def hardened_accuracy(backbone: Backbone, domain: Domain, data: Any) -> float:
    """Percent of the test split after each layer is its main template, with new statistics."""
    network = backbone.network
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    chosen = order[:STATISTICS_IMAGES].numpy()
    images = to_pixels(data.train.images[chosen])
    hardened = harden(domain)
    hardened.set_statistics(*estimate_statistics(network, hardened, images.split(BATCH)))
    return accuracy(backbone, hardened, data.test)


def _rounded(domain: Domain) -> list[list[float]]:
    """The mixture (L, K) of a domain, short enough for a row."""
    return [[round(weight, 4) for weight in layer] for layer in domain.mixture().tolist()]


def _naming(job: TaskJob, cell: Cell) -> dict[str, Any]:
    return {
        "part": job.part,
        "profile": job.profile.name,
        "setting": job.setting,
        "seed": job.seed,
        "task": cell.task,
        "start": cell.start,
        "trains": list(cell.trains),
        "labels": cell.labels,
        "data": job.data,
        "data_fingerprint": job.data_fingerprint,
    }


def _key(job: TaskJob, cell: Cell) -> tuple[str, ...]:
    naming: Mapping[str, Any] = _naming(job, cell)
    return tuple(str(naming[name]) for name in CELL)


def in_words(row: Mapping[str, Any]) -> str:
    """A row, as JSON has it, in a line."""
    name, what = f"{row['part']}, {row['setting']}, seed {row['seed']}", row["task"]
    if row["start"]:
        labels = "all labels" if row["labels"] is None else f"{row['labels']} labels a class"
        what += f" from {row['start']}, {' + '.join(row['trains'])}, {labels}"
    return f"{name}: {what}: {row['accuracy']:.2f} %"
