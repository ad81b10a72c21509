"""What `da-compose train-tasks` and `transfer` do, and the labelled tasks that they are given."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.start import NEAREST
from adapters.transfer import RANDOM, USUAL, transfer
from benchmarks.cli.mixture_options import MixtureOptions
from benchmarks.cli.pretraining import domain_name, domain_notes
from benchmarks.harness.cells import accuracy
from benchmarks.harness.few_labels import draw_labelled
from da_compose import load_backbone
from da_compose.images import ImageSet
from da_compose.parallel import process_0_first, rank
from da_compose.starts import MEAN
from da_compose.training.recipes import DIGIT_RECIPES, usual_patch_size
from da_compose.training.run import discard_state
from da_compose.training.tasks import XI_RATE, Task, train_tasks
from da_compose.trees import read_tree
from data_prep import (
    PictureBenchmark,
    PreparedDomain,
    choose_task_benchmark,
    load_picture_domain,
    load_task,
    task_classes,
)


@dataclass(frozen=True, kw_only=True)
class LabelledTask:
    """A task with held-out test images, at hand."""

    prepared: PreparedDomain
    class_names: tuple[str, ...]

    @property
    def task(self) -> Task:
        """What is trained on."""
        prepared = self.prepared
        return Task(name=prepared.name, train=prepared.train, class_names=self.class_names)


def read_task(name: str, size: int, data_root: Path | None) -> LabelledTask:
    """A task of `data_prep` by name, or a folder <class>/<picture>, as size x size pixels.

    A fifth of each class of a folder is held out, the same for everybody.
    """
    try:
        classes = task_classes(name)
    except ValueError as error:
        if not Path(name).is_dir():
            raise ValueError(f"{error}, and no folder <class>/<picture>") from error
        return _read_folder(Path(name).resolve(), size)
    prepared = load_task(name, data_root=data_root, size=size)
    return LabelledTask(prepared=prepared, class_names=classes)


def _read_folder(folder: Path, size: int) -> LabelledTask:
    pictures, classes = read_tree(folder)
    if len(classes) < 2:
        raise ValueError(
            f"{folder} holds one class, {', '.join(classes)}; expected at least two, as "
            "<class>/<picture>"
        )
    counts = Counter(classes[label] for label in pictures.labels)
    if lonely := [name for name in classes if counts[name] < 2]:
        raise ValueError(
            f"{folder} holds fewer than two pictures of {', '.join(lonely)}; one trains, another "
            "is held out: add some, or leave the class out"
        )
    tree = PictureBenchmark(
        name=folder.parent.name,
        domains=(folder.name,),
        class_names=classes,
        origin="files",
        folder=folder.parent,
    )
    prepared = load_picture_domain(tree, folder.name, size=size)
    prepared = replace(prepared, name=task_name(folder.name))
    return LabelledTask(prepared=prepared, class_names=classes)


def task_name(name: str) -> str:
    """The name that the task of this name or folder has on a backbone."""
    return domain_name(Path(name).resolve().name, "task")


def train_named_tasks(
    out: Path,
    names: Sequence[str],
    *,
    image_size: int,
    steps: int,
    tasks_a_step: int | None,
    mixtures: MixtureOptions,
    data_root: Path | None,
    seed: int,
    device: str,
) -> Iterator[str]:
    """Train tasks together and write the backbone; lines with each one's test accuracy.

    names: as of `read_task`; none: the benchmark's. Several processes of one group train together.
    """
    recipe, patch_size = DIGIT_RECIPES["paper"], usual_patch_size(image_size)
    shape = replace(recipe.network, image_size=image_size, patch_size=patch_size)
    config = replace(
        recipe.pretraining,
        steps=steps,
        domains_a_step=tasks_a_step,
        xi_rate=XI_RATE,
        regularization=mixtures.regularization,
        seed=seed,
    )
    network_config, first_xi = mixtures.network_config(shape, seed), mixtures.first_xi(shape, seed)
    notes: list[str] = []
    with process_0_first():  # it alone downloads and prepares
        if not names:
            chosen = choose_task_benchmark(data_root)
            names, notes = chosen.tasks, [*chosen.notes]
        found = [read_task(name, image_size, data_root) for name in names]
    for name in (task.prepared.name for task in found):
        if name in (NEAREST, MEAN, RANDOM):
            raise ValueError(f"a task cannot be named {name}, a start of `transfer`; rename it")
    notes += [note for task in found for note in domain_notes(task.prepared)]
    if rank() == 0:
        yield from (f"note: {note}" for note in dict.fromkeys(notes))
    backbone = train_tasks(
        [task.task for task in found],
        network_config,
        config,
        out.parent,
        first_xi=first_xi,
        device=device,
    )
    if rank() > 0:
        return
    data = {task.prepared.name: task.prepared.fingerprint for task in found}
    backbone.notes.update(mixtures.given, steps=steps, data=data)
    backbone.save(out)
    discard_state(out.parent)
    yield f"wrote {out}"
    for prepared in (task.prepared for task in found):
        percent = accuracy(backbone, backbone.network.domains[prepared.name], prepared.test)
        yield _tested(prepared, percent)


def transfer_task(
    out: Path,
    name: str,
    *,
    backbone: Path,
    start: str,
    trains: Sequence[str],
    steps: int,
    labels: int | None,
    data_root: Path | None,
    seed: int,
    device: str,
) -> Iterator[str]:
    """Learn a new task on a frozen backbone and write its adapter; lines that say how it went.

    labels: so many images of each class alone have labels; None: all.
    """
    loaded = load_backbone(backbone, device)
    network = loaded.network
    starts = (NEAREST, MEAN, RANDOM, *network.domains.names)
    if start not in starts:
        raise ValueError(f"no start {start!r}; choose from {', '.join(starts)}")
    found = read_task(name, network.config.image_size, data_root)
    yield from (f"note: {note}" for note in domain_notes(found.prepared))
    task = found.task
    if labels is not None:
        task = replace(task, train=ImageSet(*draw_labelled(task.train, labels, seed)))
    config = replace(USUAL, steps=steps, seed=seed)
    new = transfer(loaded, task, start=start, trains=trains, config=config)
    for compared, score in new.scores.items():
        yield f"start {compared}: {score:.1f} % of training images right before any training"
    yield _tested(found.prepared, accuracy(loaded, new.domain, found.prepared.test))
    new.save(out)
    learned = ", ".join(f"{part} {count:,}" for part, count in new.learned.items())
    yield (
        f"wrote {out}: {new.learned_parameters:,} learned numbers ({learned}), "
        f"{out.stat().st_size:,} bytes; start {new.start}"
    )


def _tested(prepared: PreparedDomain, percent: float) -> str:
    return (
        f"{prepared.name}: accuracy {percent:.2f} % of {len(prepared.test):,} held-out test images"
    )
