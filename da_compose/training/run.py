"""A pretraining run in a folder: log, progress, and a state to go on from after an interruption."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from da_compose.images import ImageSet
from da_compose.model.contract import Network
from da_compose.model.domain import Domain
from da_compose.parallel import as_process_0_says, rank
from da_compose.progress import phase, remark
from da_compose.storage.backbone import EXTRA_STATE, FORMAT, network_state
from da_compose.storage.files import load_tensors, naming, replacing, save_tensors, understood
from da_compose.storage.schema import Field, check_metadata, check_tensors, one_of, short, whole
from da_compose.training.trainer import PretrainConfig, Pretrainer

STATE = "training-state.safetensors"
LOG = "pretrain.jsonl"
SAVE_EVERY = 50  # steps


class Steps(Protocol):
    """A configuration of so many steps, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int: ...


class Trainer(Protocol):
    """What trains step by step; a step is a function of its number, network and optimizer."""

    step_number: int

    @property
    def network(self) -> Network: ...
    @property
    def config(self) -> Steps: ...
    @property
    def sources(self) -> Mapping[str, ImageSet]: ...
    @property
    def domains(self) -> Mapping[str, Domain]: ...
    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def step(self) -> dict[str, float]:
        """One step: loss, accuracy in percent, number of images, and any other figure."""
        ...

    def finish(self) -> None:
        """What comes after the last step."""
        ...


def run_training(
    network: Network,
    sources: Mapping[str, ImageSet],
    config: PretrainConfig,
    folder: Path,
    *,
    save_every: int | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Pretrain `network` in place; an interrupted run in `folder` goes on bit for bit on CPU.

    Writes one JSON line a step to `folder/pretrain.jsonl`. The state file stays until
    `discard_state`: call it when the backbone is written.
    classes: their names, which must be the same when a run goes on.

    Several processes of one group call it together, in a folder that all of them see: process 0
    alone writes and shows. A run may go on with another number of processes, up to rounding.
    """
    run(
        Pretrainer(network, sources, config),
        folder,
        save_every=save_every,
        classes=classes,
    )


def run(
    trainer: Trainer,
    folder: Path,
    *,
    save_every: int | None = None,
    classes: Sequence[str] = (),
) -> None:
    """See `run_training`: all steps of a trainer that are left, and its end."""
    config, network = trainer.config, trainer.network
    state, log = folder / STATE, folder / LOG
    resumed, writes = as_process_0_says(state.exists(), network.device), rank() == 0
    if resumed:
        load_state(trainer, state, classes)
    if save_every is not None and save_every < 1:
        raise ValueError(f"save_every must be at least 1, got {save_every}")
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        _cut_log(log, trainer.step_number)
    started, images = time.perf_counter(), 0
    with (
        naming(log),
        phase("training", config.steps, trainer.step_number) as taking,
        (log if writes else Path(os.devnull)).open("a") as lines,
    ):
        if resumed:
            remark(f"goes on at step {trainer.step_number} of {config.steps}")
        while trainer.step_number < config.steps:
            figures = trainer.step()
            images += int(figures["images"])
            rate = images / (time.perf_counter() - started)
            line = {"step": trainer.step_number, **figures, "images_per_second": round(rate, 1)}
            lines.write(json.dumps(line) + "\n")
            taking.to(
                trainer.step_number,
                f"loss {figures['loss']:.3f}, accuracy {figures['accuracy']:.0f} %, "
                f"{rate:.0f} images/s",
            )
            save = (
                trainer.step_number % (save_every or SAVE_EVERY) == 0
                or trainer.step_number == config.steps
            )
            if save and writes:
                lines.flush()
                save_state(trainer, state, classes)
    trainer.finish()


def discard_state(folder: Path) -> None:
    """Remove the state of a run whose backbone is written."""
    (folder / STATE).unlink(missing_ok=True)


def save_state(trainer: Trainer, path: Path, classes: Sequence[str] = ()) -> None:
    """Network, optimizer and step number; samplers and generators are functions of the step."""
    tensors = {f"network.{k}": v for k, v in trainer.network.state_dict().items()}
    for number, state in trainer.optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{number}.{key}"] = torch.as_tensor(value)
    metadata = {
        "kind": "training state",
        "format": FORMAT,
        "step": trainer.step_number,
        **_identity(trainer, classes),
    }
    save_tensors(path, tensors, metadata)


def load_state(trainer: Trainer, path: Path, classes: Sequence[str] = ()) -> None:
    """Continue from a saved state; refused when configuration or data are not the same."""
    tensors, metadata = load_tensors(path, "training state")
    identity = json.loads(json.dumps(_identity(trainer, classes)))
    with understood(path):
        schema = {
            "kind": one_of("training state"),
            "format": whole(1, FORMAT),
            "step": whole(0, trainer.config.steps),
        } | {key: Field("what a run goes by", lambda _: True) for key in identity}
        check_metadata(metadata, schema)
    for key, value in identity.items():
        if metadata[key] != value:
            raise ValueError(
                f"{path} was saved with another {key} ({_difference(metadata[key], value)}); "
                "delete it to start anew, or use another folder"
            )
    with understood(path):
        check_tensors(tensors, _expected(trainer, tensors))
        trainer.network.load_state_dict(network_state(tensors, trainer.network))
        optimizer = trainer.optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                optimizer["state"].setdefault(int(number), {})[key] = value
        trainer.optimizer.load_state_dict(optimizer)
    trainer.step_number = metadata["step"]


def _expected(trainer: Trainer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a state holds, by name: all of the network, and Adam's state of what has moved."""
    state = trainer.network.state_dict()
    expected = {f"network.{name}": value for name, value in state.items()}
    expected[EXTRA_STATE] = tensors.get(EXTRA_STATE, expected[EXTRA_STATE])  # not read
    trained = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(trained):
        parts = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        named = {f"optimizer.{number}.{key}": value for key, value in parts.items()}
        expected |= named if named.keys() & tensors.keys() else {}
    return expected


def _identity(trainer: Trainer, classes: Sequence[str]) -> dict[str, object]:
    first_xi = sha256(trainer.network.get_buffer("first_xi").cpu().numpy().tobytes())
    return {
        "pretraining": asdict(trainer.config),
        "network": asdict(trainer.network.config),
        "sources": {name: len(data) for name, data in trainer.sources.items()},
        "order of sources": list(trainer.sources),
        "names of classes": list(classes),
        "content of sources": {name: data.fingerprint for name, data in trainer.sources.items()},
        "set of own parts": {
            domain.name: [domain.class_names, domain.gamma is not None]
            for domain in trainer.domains.values()
        },
        "first_xi": first_xi.hexdigest()[:16],
    }


def _difference(saved: object, now: object) -> str:
    """What is not the same, in words: of mappings only the entries that differ."""
    if not (isinstance(saved, dict) and isinstance(now, dict)):
        return f"{short(saved)}, now {short(now)}"
    old, new = cast(dict[str, object], saved), cast(dict[str, object], now)
    absent = object()
    differ = [key for key in {**old, **new} if old.get(key, absent) != new.get(key, absent)]
    said = [f"{key} {old.get(key, 'none')}, now {new.get(key, 'none')}" for key in differ]
    return ", ".join(map(short, said[:5])) + (", ..." if len(said) > 5 else "")


def _cut_log(log: Path, step: int) -> None:
    """Drop lines of steps that will be taken again."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    with replacing(log) as temporary:
        temporary.write_text("".join(lines[:step]))
