"""Mutations of a safetensors file of ours: damage, and forgery with the checksum made anew."""

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from da_compose.storage.files import CHECKSUM, checksum

JUNK: tuple[Any, ...] = (None, -1, 1.5, float("nan"), 10**18, True, "", "x" * 99, "?", [], {}, [[]])
DEEP = 100_000  # levels of JSON within JSON


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
