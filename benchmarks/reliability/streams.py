"""A long stream with broken images and noise in between: refused, unmoved, as good, no memory."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from adapters import Adaptation, adapt
from benchmarks.reliability.material import SIZE, Images, Material, loaded, shapes
from benchmarks.reliability.outcome import RIGHT, Outcome, Wrong, refusal

LENGTHS = (640, 2_560, 10_240)  # images, by round
TRAINS = ("mixture_weights", "input_adapter", "batch_norm", "statistics alone")
GROWTH = 24.0  # MB that the last four fifths of a stream may take
LOST = 5.0  # points of accuracy that noise may cost
NOISE = 0.1  # share of calls that bring noise, and of those that bring what is broken


def part(number: int) -> str:
    """What a stream moves."""
    return TRAINS[number % len(TRAINS)]


def trial(material: Material, folder: Path, number: int, random: Generator) -> Outcome:
    """One stream, in calls of any size; the same images in one call must end in the same domain."""
    moved = part(number)
    length = LENGTHS[min(number // len(TRAINS), len(LENGTHS) - 1)]
    backbone, (test, labels) = loaded(material), shapes(300, 77)
    how: dict[str, Any] = {"strategy": "batch_norm"} if moved == TRAINS[-1] else {"trains": moved}
    adapted = adapt(backbone, shapes(120, 10)[0], steps=10, seed=number, **how)
    before = _accuracy(adapted, test, labels)
    good, seen, memory = [], 0, 0.0
    while seen < length:
        images = shapes(int(random.integers(1, 130)), int(random.integers(2**31)))[0]
        if random.random() < NOISE:
            images = random.integers(0, 256, images.shape, dtype=np.uint8)
        elif random.random() < NOISE:
            _give_broken(adapted, images, random)
        adapted.update(images)
        good.append(images)
        seen += len(images)
        if not memory and seen >= length // 5:
            memory = _held() + (length - seen) * SIZE * SIZE * 3 / 2**20  # of what is kept here
    if (grown := _held() - memory) > GROWTH:
        raise Wrong(f"{length:,} images took {grown:.0f} MB more memory")
    if not all(torch.isfinite(value).all() for value in adapted.domain.state_dict().values()):
        raise Wrong("the domain is not finite")
    after = _accuracy(adapted, test, labels)
    if after < before - LOST:
        raise Wrong(f"accuracy fell from {before:.1f} to {after:.1f} %")
    once = adapt(backbone, shapes(120, 10)[0], steps=10, seed=number, **how)
    once.update(np.concatenate(good))
    for name, value in once.domain.state_dict().items():
        if not torch.equal(value, adapted.domain.state_dict()[name]):
            raise Wrong(f"{name} depends on how the stream is cut, or on what was refused")
    return Outcome(RIGHT)


def _give_broken(adaptation: Adaptation, images: Images, random: Generator) -> None:
    """Images of which some cannot be: refused, and the domain as before."""
    floats = images.astype(np.float32) / 255
    place = tuple(int(random.integers(side)) for side in floats.shape)
    broken = {
        "NaN": _with(floats, place, np.nan),
        "infinity": _with(floats, place, np.inf),
        "normalized": (floats - 0.5) / 0.25,
        "text": np.full(images.shape, "x"),
        "complex": floats.astype(np.complex64),
        "two channels": floats[..., :2],
        "none": images[:0],
        "flat": images.reshape(len(images), -1),
    }
    name = str(random.choice(list(broken)))
    kept = {name: value.clone() for name, value in adaptation.domain.state_dict().items()}
    try:
        adaptation.update(broken[name])
    except Exception as error:
        refusal(error)
    else:
        raise Wrong(f"images of kind {name!r} were taken in")
    for name, value in adaptation.domain.state_dict().items():
        if not torch.equal(value, kept[name]):
            raise Wrong(f"a refused call changed {name}")


def _with(floats: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = floats.copy()
    changed[place] = value
    return changed


def _accuracy(adaptation: Adaptation, test: Images, labels: np.ndarray) -> float:
    return 100 * float((adaptation.predict(test).numpy() == labels).mean())


def _held() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
