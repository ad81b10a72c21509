"""Eight threads on one backbone: each gets what it gets alone, and the process stays as it was."""

import random as python_random
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from adapters import adapt, adapt_many, load_adaptation
from benchmarks.reliability.material import NEW, SIZE, Material, loaded, shapes
from benchmarks.reliability.outcome import RIGHT, Outcome, Wrong, shortened
from da_compose import Backbone, load_backbone
from da_compose.reading import read_images

THREADS = 8
Job = Callable[[], Tensor]
STRATEGIES = ("information_maximization", "moment_matching", "adversarial", "tent", "batch_norm")


def _adapt(backbone: Backbone, random: Generator) -> Job:
    options: dict[str, Any] = {
        "strategy": str(random.choice(STRATEGIES)),
        "seed": int(random.integers(100)),
        "bfloat16": bool(random.random() < 0.3),
        "trains": str(random.choice(["mixture_weights", "input_adapter", "batch_norm"])),
        "steps": 4,
    }
    images = shapes(int(random.integers(20, 90)), int(random.integers(100)))[0]
    return lambda: _numbers(adapt(backbone, images, **options))


def _many(backbone: Backbone, random: Generator) -> Job:
    targets = {f"t{n}": shapes(30, int(random.integers(100)))[0] for n in range(2)}
    return lambda: torch.cat(
        [_numbers(found) for found in adapt_many(backbone, targets, steps=2).values()]
    )


def _predict(material: Material, backbone: Backbone, random: Generator) -> Job:
    images = shapes(int(random.integers(1, 300)), int(random.integers(100)))[0]
    return lambda: load_adaptation(material.adapter, backbone).predict_proba(images)


def _read_folder(material: Material) -> Job:
    return lambda: torch.from_numpy(read_images(material.tree / NEW, SIZE))


def _read_loader(random: Generator) -> Job:
    pixels = torch.from_numpy(shapes(64, int(random.integers(100)))[0]).movedim(-1, 1) / 255
    data = TensorDataset(pixels)
    return lambda: torch.from_numpy(read_images(DataLoader(data, 8, shuffle=True), SIZE))


def _stream(material: Material, backbone: Backbone, random: Generator) -> Job:
    images = shapes(200, int(random.integers(100)))[0]

    def update() -> Tensor:
        adaptation = load_adaptation(material.adapter, backbone)
        for start in range(0, len(images), 50):
            adaptation.update(images[start : start + 50])
        return _numbers(adaptation)

    return update


def _load(material: Material) -> Job:
    images = shapes(8, 3)[0]
    return lambda: load_adaptation(
        material.adapter, load_backbone(material.backbone)
    ).predict_proba(images)


def _numbers(adaptation: Any) -> Tensor:
    state = adaptation.domain.state_dict().values()
    return torch.cat([value.flatten().double() for value in state if value.numel()])


def _jobs(material: Material, kind: str, random: Generator) -> list[Job]:
    backbone = loaded(material)
    kinds: dict[str, Callable[[], Job]] = {
        "adapt": partial(_adapt, backbone, random),
        "adapt many": partial(_many, backbone, random),
        "predict": partial(_predict, material, backbone, random),
        "read a folder": partial(_read_folder, material),
        "read a loader": partial(_read_loader, random),
        "stream": partial(_stream, material, backbone, random),
        "load": partial(_load, material),
    }
    names = [kind] * THREADS if kind in kinds else random.choice([*kinds], THREADS)
    return [kinds[str(name)]() for name in names]


KINDS = ("everything", "adapt", "everything", "predict", "read a folder", "everything", "stream",
         "read a loader", "everything", "load", "adapt many")  # fmt: skip


def part(number: int) -> str:
    """What the threads do."""
    return KINDS[number % len(KINDS)]


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    jobs_of: Callable[[Material, str, Generator], list[Job]] = _jobs,
) -> Outcome:
    """Eight jobs one after another, then at once."""
    jobs = jobs_of(material, part(number), random)
    alone = [job() for job in jobs]
    before, start = _of_the_process(material), Barrier(len(jobs))

    def at_once(job: Job) -> Tensor:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(at_once, job) for job in jobs]
    for place, future in enumerate(running):
        if error := future.exception():
            said = shortened(f"{type(error).__name__}: {error}")
            raise Wrong(f"a thread fails that did not alone: {said}")
        if not torch.equal(future.result(), alone[place]):
            raise Wrong(f"job {place} of {len(jobs)} gives something else than alone")
    after = _of_the_process(material)
    if changed := [name for name in before if before[name] != after[name]]:
        raise Wrong(f"changed of the process: {', '.join(changed)}")
    return Outcome(RIGHT)


def _of_the_process(material: Material) -> dict[str, Any]:
    """What belongs to the whole process, and no call may leave changed; and the backbone."""
    return {
        "backbone": loaded(material).fingerprint,
        "filters of warnings": [*warnings.filters],
        "showwarning": warnings.showwarning,
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": str(np.random.get_state()),  # noqa: NPY002 - the global one
        "Python's generator": python_random.getstate(),
        "default type": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
