"""What the tasks benchmark trains: four parts, their settings, and the cells of each network."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from adapters.start import NEAREST
from adapters.transfer import RANDOM, TRANSFERRED, USUAL
from benchmarks.harness.plan import without_what_is_off
from da_compose import PRESETS, NetworkConfig
from da_compose.model.signature import SIGNATURES, make_signature
from da_compose.starts import MEAN
from da_compose.training.regularizers import Regularization
from da_compose.training.tasks import XI_RATE
from da_compose.training.trainer import PretrainConfig
from data_prep import (
    PreparedDomain,
    TaskBenchmark,
    choose_task_benchmark,
    load_task,
    task_classes,
)

NETWORK = PRESETS["small"]  # 16 layers x 4 templates
SIGNATURE_LAYERS = 12  # as in the paper's example of a progressive signature
DEPTHS = (4, 8, 16)
LEARNED = "learned"
REGULARIZED = {
    "learned, min-entropy": Regularization(min_entropy=1.0),
    "learned, attraction": Regularization(template_attraction=3.0),
}
COMPOSITIONAL, PATCHES, SINGLE = "compositional", "patches", "single"
STATISTICS_BATCHES = 30
TASKS_A_STEP = 3  # of the nine
# What is learned of a new task, from least to most
TRAINED = (
    ("heads",),
    ("heads", "mixture_weights"),
    ("heads", "batch_norm"),
    TRANSFERRED,
)


@dataclass(frozen=True, kw_only=True)
class TaskProfile:
    """How much a run of the tasks benchmark spends."""

    name: str
    seeds: tuple[int, ...]
    alone_steps: int  # of a network of one task, for signatures and depth
    joint_steps: int  # of the nine tasks together, three of them a step
    bank_steps: int  # of the bank that tasks are transferred to
    transfer_steps: int
    new_tasks: int  # at most
    labels: tuple[int | None, ...]  # images of each class of a new task; None: all


PROFILES = {
    "quick": TaskProfile(
        name="quick", seeds=(0,), alone_steps=200, joint_steps=360, bank_steps=200,
        transfer_steps=80, new_tasks=1, labels=(5, 20, None),
    ),
    "full": TaskProfile(
        name="full", seeds=(0, 1, 2), alone_steps=400, joint_steps=720, bank_steps=300,
        transfer_steps=80, new_tasks=3, labels=(5, 20, 100, None),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The tasks at hand, prepared, and where they came from."""

    chosen: TaskBenchmark
    domains: Mapping[str, PreparedDomain]
    class_names: Mapping[str, tuple[str, ...]]

    @property
    def fingerprint(self) -> str:
        """Of all tasks together."""
        parts = sorted(f"{name}:{domain.fingerprint}" for name, domain in self.domains.items())
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def load_task_data(data_root: Path | None, cache: Path | None = None) -> TaskData:
    """Choose and prepare the tasks of the benchmark with the data at hand."""
    chosen = choose_task_benchmark(data_root, cache=cache)
    names = (*chosen.tasks, *chosen.transfer)
    return TaskData(
        chosen=chosen,
        domains={name: load_task(name, data_root=data_root, cache=cache) for name in names},
        class_names={name: task_classes(name) for name in names},
    )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of a part's table; the last three are of new tasks on a bank."""

    task: str
    start: str = ""
    trains: tuple[str, ...] = ()
    labels: int | None = None  # images of each class; None: all


@dataclass(frozen=True, kw_only=True)
class TaskJob:
    """One network to train on some tasks, and the cells that stand on it."""

    part: str
    setting: str
    seed: int
    profile: TaskProfile
    tasks: tuple[str, ...]
    network: NetworkConfig
    pretraining: PretrainConfig
    own_batch_norm: bool
    cells: tuple[Cell, ...]
    data: str
    data_fingerprint: str

    @property
    def identity(self) -> dict[str, Any]:
        """All that the network depends on, as JSON holds it."""
        parts = {
            "tasks": self.tasks,
            "network": asdict(self.network),
            "pretraining": asdict(self.pretraining),
            "own_batch_norm": self.own_batch_norm,
            "data_fingerprint": self.data_fingerprint,
        }
        return without_what_is_off(json.loads(json.dumps(parts)))

    @property
    def config(self) -> dict[str, Any]:
        """All that its cells depend on, besides what a row names."""
        if self.part != "transfer":
            return self.identity
        return self.identity | {"transfer": without_what_is_off(asdict(self.transfer))}

    @property
    def transfer(self) -> PretrainConfig:
        """How a new task is learned on the bank."""
        return replace(USUAL, steps=self.profile.transfer_steps, seed=self.seed)

    def folder(self, runs: Path) -> Path:
        """Where the network lies; another identity gives another folder."""
        key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        return runs / f"{self.part}-{self.seed}-{key}"


def plan_tasks(profile: TaskProfile, data: TaskData, parts: tuple[str, ...]) -> Iterator[TaskJob]:
    """Every network of the parts, seed by seed."""
    for seed in dict.fromkeys(profile.seeds):
        for part in parts:
            for job in JOBS[part](profile, data.chosen, seed):
                yield TaskJob(
                    part=part,
                    seed=seed,
                    profile=profile,
                    data=data.chosen.origin,
                    data_fingerprint=data.fingerprint,
                    **job,
                )


def _alone(steps: int, seed: int, regularization: Regularization | None = None) -> PretrainConfig:
    return PretrainConfig(
        steps=steps,
        batch_size=64,
        xi_rate=XI_RATE,
        regularization=regularization,
        statistics_batches=STATISTICS_BATCHES,
        seed=seed,
    )


def _together(steps: int, seed: int) -> PretrainConfig:
    return PretrainConfig(
        steps=steps,
        batch_size=32,
        xi_rate=XI_RATE,
        statistics_batches=STATISTICS_BATCHES,
        seed=seed,
    )


def _signatures(profile: TaskProfile, chosen: TaskBenchmark, seed: int) -> Iterator[dict[str, Any]]:
    """Learned mixtures, with and without regularizers, and signatures made by hand."""
    task, config = chosen.sets[0], replace(NETWORK, num_layers=SIGNATURE_LAYERS)
    common = {"tasks": (task,), "cells": (Cell(task=task),), "own_batch_norm": False}
    for setting, regularization in {LEARNED: None, **REGULARIZED}.items():
        pretraining = _alone(profile.alone_steps, seed, regularization)
        yield common | {"setting": setting, "network": config, "pretraining": pretraining}
    for kind in SIGNATURES:
        signature = make_signature(kind, SIGNATURE_LAYERS, config.num_templates, seed)
        network = replace(config, signature=signature)
        pretraining = _alone(profile.alone_steps, seed)
        yield common | {"setting": kind, "network": network, "pretraining": pretraining}


def _depth(profile: TaskProfile, chosen: TaskBenchmark, seed: int) -> Iterator[dict[str, Any]]:
    """One bank of templates in 4, 8 and 16 layers by the progressive signature."""
    for task in dict.fromkeys((chosen.sets[0], chosen.sets[-1])):
        for layers in DEPTHS:
            signature = make_signature("progressive", layers, NETWORK.num_templates)
            yield {
                "setting": f"{layers} layers",
                "tasks": (task,),
                "network": replace(NETWORK, num_layers=layers, signature=signature),
                "pretraining": _alone(profile.alone_steps, seed),
                "own_batch_norm": False,
                "cells": (Cell(task=task),),
            }


def _tasks(profile: TaskProfile, chosen: TaskBenchmark, seed: int) -> Iterator[dict[str, Any]]:
    """All tasks on one bank, on one ordinary network, and each on a network of its own.

    A task gets as many images in each setting.
    """
    joint = replace(_together(profile.joint_steps, seed), domains_a_step=TASKS_A_STEP)
    for setting, network in ((COMPOSITIONAL, NETWORK), (PATCHES, NETWORK.unshared())):
        yield {
            "setting": setting,
            "tasks": chosen.tasks,
            "network": network,
            "pretraining": joint,
            "own_batch_norm": True,
            "cells": tuple(Cell(task=task) for task in chosen.tasks),
        }
    share = min(TASKS_A_STEP, len(chosen.tasks)) / len(chosen.tasks)
    for task in chosen.tasks:
        yield {
            "setting": SINGLE,
            "tasks": (task,),
            "network": NETWORK,
            "pretraining": _together(round(profile.joint_steps * share), seed),
            "own_batch_norm": True,
            "cells": (Cell(task=task),),
        }


def _transfer(profile: TaskProfile, chosen: TaskBenchmark, seed: int) -> Iterator[dict[str, Any]]:
    """New tasks on a bank of the unfiltered ones: start x what is learned x number of labels."""
    every = product(
        chosen.transfer[: profile.new_tasks],
        (*chosen.sets, MEAN, RANDOM, NEAREST),
        TRAINED,
        profile.labels,
    )
    yield {
        "setting": "bank",
        "tasks": chosen.sets,
        "network": NETWORK,
        "pretraining": _together(profile.bank_steps, seed),
        "own_batch_norm": True,
        "cells": tuple(
            Cell(task=task, start=start, trains=trains, labels=labels)
            for task, start, trains, labels in every
        ),
    }


JOBS = {"signatures": _signatures, "depth": _depth, "tasks": _tasks, "transfer": _transfer}
