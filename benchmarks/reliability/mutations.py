"""Files that were damaged or forged: refused in one line, or as good as before; never otherwise.

A forger who writes other values that could be right, and the checksum anew, cannot be found out;
what cannot be right can: other types and sizes, vast numbers, values that are not finite.
"""

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from numpy.random import Generator
from torch import Tensor

from adapters import load_adaptation
from benchmarks.harness.measure import peak_memory_mb
from benchmarks.reliability.forging import MUTATIONS
from benchmarks.reliability.material import SITES, TINY, Material, loaded, shapes
from benchmarks.reliability.outcome import REFUSED, RIGHT, Outcome, Wrong, refusal
from da_compose import Backbone, CompositionalNetwork, ImageSet, load_backbone
from da_compose.inference import DomainModel
from da_compose.training.run import STATE, load_state, save_state
from da_compose.training.trainer import PretrainConfig, Pretrainer

ALLOWANCE = 48.0  # MB that reading may take besides twice the file
SECONDS = 10.0  # that reading may take
STEPS = 3  # of the training whose state is mutated


def read_backbone(material: Material, path: Path) -> Tensor:
    """Probabilities of every domain on a few images, by the backbone in a file."""
    return answer(load_backbone(path))


def answer(backbone: Backbone) -> Tensor:
    """Probabilities (D, M, N) of every domain of a backbone; Wrong where its names are no text."""
    names = (*backbone.class_names, *backbone.network.domains.names)
    if not all(isinstance(name, str) and name for name in names):
        raise Wrong(f"names that are no text were accepted: {names}")
    if not isinstance(backbone.notes, dict):
        raise Wrong(f"notes were accepted that are {backbone.notes!r}")
    probe = shapes(12, 99)[0]
    every = [DomainModel(backbone, domain).predict_proba(probe)
             for domain in backbone.network.domains]  # fmt: skip
    return torch.stack(every)


def read_adapter(material: Material, path: Path) -> Tensor:
    """Probabilities on a few images, by the adapter in a file."""
    adaptation = load_adaptation(path, loaded(material))
    if not isinstance(adaptation.notes, dict) or not isinstance(adaptation.domain.name, str):
        raise Wrong(f"accepted: name {adaptation.domain.name!r}, notes {adaptation.notes!r}")
    return adaptation.predict_proba(shapes(12, 99)[0])


def read_state(material: Material, path: Path) -> Tensor:
    """All weights of a network after the rest of the training whose state is in a file."""
    trainer = _trainer()
    load_state(trainer, path)
    while trainer.step_number < STEPS:
        trainer.step()
    if trainer.step_number != STEPS:
        raise Wrong(f"step {trainer.step_number} of {STEPS} was accepted")
    held = trainer.network.state_dict().items()
    return torch.cat([value.flatten().double() for name, value in held if "extra" not in name])


def _trainer() -> Pretrainer:
    sources = {site: ImageSet(*shapes(24, place, site)) for place, site in enumerate(SITES)}
    config = PretrainConfig(steps=STEPS, batch_size=4, statistics_batches=1)
    return Pretrainer(CompositionalNetwork(TINY), sources, config)


READ: Mapping[str, Callable[[Material, Path], Tensor]] = {
    "backbone": read_backbone,
    "adapter": read_adapter,
    "training state": read_state,
}


@cache
def original(material: Material, subject: str) -> tuple[bytes, Tensor]:
    """A file as it was written, and what is read from it."""
    if subject == "training state":
        path = material.folder / STATE
        trainer = _trainer()
        for _ in range(STEPS - 1):
            trainer.step()
        save_state(trainer, path)
    else:
        path = material.backbone if subject == "backbone" else material.adapter
    return path.read_bytes(), READ[subject](material, path)


PARTS = [(subject, mutation) for mutation in MUTATIONS for subject in READ]


def part(number: int) -> str:
    """What is mutated, and how."""
    return ", ".join(PARTS[number % len(PARTS)])


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    read: Mapping[str, Callable[[Material, Path], Tensor]] = READ,
) -> Outcome:
    """One mutation of one file, read; in a worker, whose peak of memory is taken."""
    subject, mutation = PARTS[number % len(PARTS)]
    content, wanted = original(material, subject)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mutated.safetensors"
    path.write_bytes(MUTATIONS[mutation](content, random))
    most = ALLOWANCE + 2 * path.stat().st_size / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is that of now
    before, began = peak_memory_mb(), time.perf_counter()
    said, found = "", torch.empty(0)
    try:
        found = read[subject](material, path)
    except Wrong:
        raise
    except Exception as error:
        said = refusal(error, path)
    taken, seconds = peak_memory_mb() - before, time.perf_counter() - began
    if taken > most:
        raise Wrong(f"took {taken:.0f} MB of memory, {most:.0f} would do; then {said}")
    if seconds > SECONDS:
        raise Wrong(f"took {seconds:.0f} seconds; then {said}")
    if said:
        return Outcome(REFUSED, said)
    if found.shape != wanted.shape or not torch.equal(found, wanted):
        raise Wrong("another answer, in silence")
    return Outcome(RIGHT)
