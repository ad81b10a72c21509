"""Inputs of every accepted type, made by hypothesis, against a slow reader; others are refused."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from adapters import load_adaptation
from benchmarks.reliability.dresses import READ, REFUSED, Drawn
from benchmarks.reliability.material import SIZE, Material, loaded
from benchmarks.reliability.outcome import REFUSED as SAID
from benchmarks.reliability.outcome import RIGHT, Outcome, Wrong, refusal, shortened
from da_compose.reading import read_images

EXAMPLES = 12  # inputs a trial
TYPES = ("uint8", "float16", "float32", "float64")
FORMS = (*READ, "what is refused")
QUIET = settings(
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def slow(images: list[NDArray[Any]], folder: bool, colour: bool) -> NDArray[np.uint8]:
    """What must come of images: each by itself to 8 bits, to its size, to colour where any is.

    folder: of files that Pillow makes small; colour: of pictures, which are always in colour.
    """
    made = []
    for image in images:
        whole = image
        if image.dtype != np.uint8:
            whole = np.array([round(255 * float(value)) for value in image.flat], np.uint8)
            whole = whole.reshape(image.shape)
        if folder:
            square = Image.fromarray(whole).convert("RGB")
            resized = square.resize((SIZE, SIZE), Image.Resampling.BILINEAR, reducing_gap=3.0)
            made.append(np.asarray(resized))
            continue
        if whole.shape[:2] != (SIZE, SIZE):
            pixels = torch.from_numpy(np.atleast_3d(whole)).movedim(-1, 0)[None].float()
            square = interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)
            whole = square[0].round().clamp(0, 255).byte().movedim(0, -1).numpy()
            whole = whole[..., 0] if image.ndim == 2 else whole
        made.append(whole)
    if colour or len({image.ndim for image in made}) > 1:
        made = [np.stack([image] * 3, -1) if image.ndim == 2 else image for image in made]
    return np.stack(made)


@st.composite
def some_images(draw: st.DrawFn, alike: bool, files: bool) -> list[NDArray[Any]]:
    """One to seven images of any size from 4 to 24 pixels, grey or colour, of one type."""
    count, side = draw(st.integers(1, 7)), st.integers(4, 24) | st.just(SIZE)
    kind = "uint8" if files else draw(st.sampled_from(TYPES))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape, made = None, []
    for _ in range(count):
        if shape is None or not alike:
            colours = draw(st.sampled_from([(), (3,)]))
            shape = (draw(side), draw(side), *colours)
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        made.append(pixels if kind == "uint8" else (pixels / 255).astype(kind))
    return made


def part(number: int) -> str:
    """The form of the images."""
    return FORMS[number % len(FORMS)]


def trial(
    material: Material,
    folder: Path,
    number: int,
    random: Generator,
    read: Callable[[Any, int], NDArray[np.uint8]] = read_images,
) -> Outcome:
    """A dozen inputs of one form; hypothesis finds the smallest that is wrong."""
    form = part(number)
    place = folder / "files"

    def fresh(images: list[NDArray[Any]], choices: int) -> Drawn:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return Drawn(images, place, np.random.default_rng(choices))

    if form == FORMS[-1]:
        name = list(REFUSED)[number // len(FORMS) % len(REFUSED)]
        image = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        return Outcome(SAID, _refused(read, name, fresh([image], number)))

    dress = READ[form]

    @seed(number)
    @QUIET
    @given(images=some_images(dress.alike, dress.files), choices=st.integers(0, 2**32 - 1))
    def check(images: list[NDArray[Any]], choices: int) -> None:
        drawn = fresh(images, choices)
        source = dress.make(drawn)
        found, files = _read(read, source), dress.files or drawn.paths
        wanted = slow(images, files, drawn.pictures)
        shown = f"{[(image.shape, str(image.dtype)) for image in images]}, choices {choices}"
        if found.shape != wanted.shape:
            raise Wrong(f"read as {found.shape}, not {wanted.shape}: {shown}")
        if not np.array_equal(found, wanted):
            most = np.abs(found.astype(int) - wanted.astype(int)).max()
            raise Wrong(f"pixels differ by up to {most}: {shown}")
        if choices % 3 == 0:
            _predicted_alike(material, form, dress.make(fresh(images, choices)), wanted)

    try:
        check()
    except Wrong:
        raise
    except Exception as error:
        raise Wrong(shortened(f"{type(error).__name__}: {error}")) from error
    return Outcome(RIGHT)


def _read(read: Callable[[Any, int], NDArray[np.uint8]], source: Any) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a word about dark pictures, say
        return read(source, SIZE)


def _refused(read: Callable[[Any, int], NDArray[np.uint8]], name: str, drawn: Drawn) -> str:
    try:
        found = _read(read, REFUSED[name](drawn))
    except Exception as error:
        return f"{name}: {refusal(error)}"
    raise Wrong(f"{name} was read as {found.shape}")


def _predicted_alike(material: Material, form: str, source: Any, wanted: NDArray[np.uint8]) -> None:
    """Predictions are those of the images as the slow reader has them, a row each."""
    adaptation = load_adaptation(material.adapter, loaded(material))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = adaptation.predict_proba(source)
    array = wanted[..., None] if wanted.ndim == 3 else wanted
    if not torch.equal(found, adaptation.predict_proba(array)):
        raise Wrong("predictions are not those of the same images as an array")
