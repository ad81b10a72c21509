"""Files that were damaged or forged: refused in one line, or as good as before; never otherwise.

A forger who writes other values that could be right, and the checksum anew, cannot be found out;
what cannot be right can: other types and sizes, vast numbers, values that are not finite.
"""

import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from adapters import load_adaptation
from benchmarks.harness.measure import peak_memory_mb
from benchmarks.reliability.material import SITES, TINY, Material, loaded, shapes
from benchmarks.reliability.outcome import REFUSED, RIGHT, Outcome, Wrong, refusal
from da_compose import Backbone, CompositionalNetwork, ImageSet, load_backbone
from da_compose.inference import DomainModel
from da_compose.storage.files import CHECKSUM, checksum
from da_compose.training.run import STATE, load_state, save_state
from da_compose.training.trainer import PretrainConfig, Pretrainer

ALLOWANCE = 48.0  # MB that reading may take besides twice the file
SECONDS = 10.0  # that reading may take
JUNK: tuple[Any, ...] = (None, -1, 1.5, float("nan"), 10**18, True, "", "x" * 99, "?", [], {}, [[]])
DEEP = 100_000  # levels of JSON within JSON
STEPS = 3  # of the training whose state is mutated


# What is read: the answer as an array, or a refusal


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


# Mutations


@dataclass
class Parts:
    """A safetensors file taken apart: header, our metadata, and bytes of tensors."""

    header: dict[str, Any]
    metadata: dict[str, Any]
    body: bytearray

    @classmethod
    def of(cls, content: bytes) -> "Parts":
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        metadata = json.loads(header.pop("__metadata__")["da_compose"])
        return cls(header, metadata, bytearray(content[8 + length :]))

    def whole(self, metadata: str | None = None) -> bytes:
        """The file again; metadata: in place of ours, as text."""
        text = json.dumps(self.metadata, sort_keys=True) if metadata is None else metadata
        header = json.dumps({"__metadata__": {"da_compose": text}, **self.header}).encode()
        return struct.pack("<Q", len(header)) + header + bytes(self.body)

    def summed(self) -> "Parts":
        """With a checksum made anew of what is there."""
        self.metadata.pop(CHECKSUM, None)
        self.metadata[CHECKSUM] = checksum(self.tensors(), self.metadata)
        return self

    def tensors(self) -> dict[str, Tensor]:
        return {name: self.tensor(name) for name in self.header}

    def tensor(self, name: str) -> Tensor:
        """One tensor, which shares memory with the body."""
        kind, (start, end) = self.header[name]["dtype"], self.header[name]["data_offsets"]
        kinds = {"F32": torch.float32, "F16": torch.float16, "F64": torch.float64,
                 "I64": torch.int64, "U8": torch.uint8, "I32": torch.int32}  # fmt: skip
        values = torch.frombuffer(self.body, dtype=torch.uint8)[start:end].clone()
        return values.view(kinds[kind]).reshape(self.header[name]["shape"])

    def put(self, name: str, values: Tensor) -> None:
        start, end = self.header[name]["data_offsets"]
        self.body[start:end] = values.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def bits(content: bytes, random: Generator) -> bytes:
    """One to eight bits the other way, anywhere, or in the header."""
    changed = bytearray(content)
    (length,) = struct.unpack("<Q", content[:8])
    end = 8 + length if random.random() < 0.5 else len(content)
    for place in random.integers(0, end, int(random.integers(1, 9))):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def cut(content: bytes, random: Generator) -> bytes:
    """Cut short, with an end of zeros, without its beginning, or with more behind it."""
    place = int(random.integers(0, len(content)))
    ways = (
        content[:place],
        content[:place] + bytes(len(content) - place),
        content[place:],
        content + content[:place],
    )
    return ways[int(random.integers(len(ways)))]


def header(content: bytes, random: Generator) -> bytes:
    """One value of the metadata something else, or gone, or one more; the checksum made anew."""
    parts = Parts.of(content)
    places = list(_places(parts.metadata))
    holder, key = places[int(random.integers(len(places)))]
    way = random.random()
    if way < 0.8:
        holder[key] = JUNK[int(random.integers(len(JUNK)))]
    elif way < 0.9:
        del holder[key]
    else:
        parts.metadata["more"] = JUNK[int(random.integers(len(JUNK)))]
    return parts.summed().whole()


def _places(value: Any) -> Any:
    """(mapping or list, key or index) of every value below one, but those of the notes."""
    for key in value if isinstance(value, dict) else range(len(value)):
        if key == CHECKSUM:
            continue
        yield value, key
        if isinstance(value[key], (dict, list)) and key != "notes":
            yield from _places(value[key])


def swapped(content: bytes, random: Generator) -> bytes:
    """Two tensors in each other's place: with the checksum as it was, or made anew.

    Made anew, of different shapes alone: others could be right.
    """
    parts = Parts.of(content)
    names = list(parts.header)
    anew = random.random() < 0.5
    while True:
        one, other = random.choice(names, 2, replace=False)
        apart = parts.header[one]["shape"] != parts.header[other]["shape"]
        if apart if anew else not parts.tensor(one).equal(parts.tensor(other)):
            break
    parts.header[one], parts.header[other] = parts.header[other], parts.header[one]
    return (parts.summed() if anew else parts).whole()


def vast(content: bytes, random: Generator) -> bytes:
    """A number that promises far more than there is, or JSON of great depth."""
    parts = Parts.of(content)
    large = int(random.choice([10**5, 10**6, 2**31, 2**40, 2**62]))
    way = int(random.integers(5))
    if way == 0:
        return struct.pack("<Q", large) + content[8:]
    if way == 1:
        name = random.choice(list(parts.header))
        shape = parts.header[name]["shape"]
        parts.header[name]["shape"] = [large, *shape[1:]]
        return parts.whole()
    if way == 2:
        return parts.whole("[" * DEEP + "]" * DEEP)
    if way == 3:
        some = [[large] * 50_000, {str(n): n for n in range(50_000)}, "x" * 500_000]
        parts.metadata[random.choice(list(parts.metadata))] = some[int(random.integers(3))]
        return parts.summed().whole()
    places = _places(parts.metadata)
    numbers = [(holder, key) for holder, key in places if type(holder[key]) in (int, float)]
    holder, key = numbers[int(random.integers(len(numbers)))]
    holder[key] = large
    return parts.summed().whole()


def not_finite(content: bytes, random: Generator) -> bytes:
    """NaN or infinity in a tensor; the checksum made anew, or none as in older files."""
    parts = Parts.of(content)
    tensors = parts.tensors().items()
    floats = [name for name, held in tensors if held.is_floating_point() and held.numel()]
    name = random.choice(floats)
    values = parts.tensor(name).flatten()
    many = int(random.integers(1, len(values) + 1)) if random.random() < 0.5 else 1
    value = float(random.choice([np.nan, np.inf, -np.inf]))
    values[torch.from_numpy(random.permutation(len(values))[:many])] = value
    parts.put(name, values)
    parts.summed()
    if random.random() < 0.3:
        del parts.metadata[CHECKSUM]
    return parts.whole()


MUTATIONS = {
    "bits flipped": bits,
    "cut": cut,
    "header edited": header,
    "tensors swapped": swapped,
    "vast sizes": vast,
    "not finite": not_finite,
}
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
    said = ""
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
