"""Plots of predictions on labelled test images: confusion matrix and contact sheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure, SubFigure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix

from benchmarks.reports.plots import DPI, save_figure

COUNTED_CLASSES = 12  # at most, for every cell of a confusion matrix to be written out
NAMED_CLASSES = 60  # at most, on an axis; more are thinned
SHOWN_LETTERS = 18  # of a class name below a thumbnail
ACROSS = 4  # thumbnails in a row of one half of a contact sheet


def plot_confusion(
    labels: ArrayLike,
    predictions: ArrayLike,
    class_names: Sequence[str],
    path: Path,
    caption: str = "",
) -> None:
    """Confusion matrix, each row a share of one true class; PNG.

    labels, predictions: classes (M,) in 0..N-1 for N class names. A class without images is grey.
    """
    true, predicted = _classes(len(class_names), labels=labels, predictions=predictions)
    counts = confusion_matrix(true, predicted, labels=range(len(class_names)))  # (N, N)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_array(
        counts / np.maximum(totals, 1), np.broadcast_to(totals == 0, counts.shape)
    )
    side = min(11.0, 5.0 + 0.14 * len(class_names))
    figure = Figure(figsize=(side + 1.2, side + 0.6), dpi=DPI, layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(
        shares, vmin=0, vmax=1, cmap=colormaps["Blues"].with_extremes(bad="0.85"),
        interpolation="none",
    )  # fmt: skip
    panel.set_title(
        f"Confusion matrix: {100 * (true == predicted).mean():.1f} % of {len(true):,} images right",
        fontsize=10,
    )
    thinned = range(0, len(class_names), -(-len(class_names) // NAMED_CLASSES))
    names = [class_names[number] for number in thinned]
    size = 8 if len(class_names) <= COUNTED_CLASSES else 6
    turned = 90 if max(map(len, names)) > 2 else 0
    panel.set_xticks(thinned, names, rotation=turned, fontsize=size, parse_math=False)
    panel.set_yticks(thinned, names, fontsize=size, parse_math=False)
    panel.set(xlabel="Predicted class", ylabel="True class")
    if len(class_names) <= COUNTED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            panel.text(
                column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=colour
            )
    figure.colorbar(image, ax=panel, shrink=0.7, label="Share of the true class")
    save_figure(figure, path, caption)


def plot_contact_sheet(
    images: NDArray[np.uint8],
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    class_names: Sequence[str],
    path: Path,
    caption: str = "",
    *,
    count: int = 24,
    seed: int = 0,
) -> None:
    """Test images that adaptation put right, and those that it put wrong, as thumbnails; PNG.

    images: uint8 (M, S, S) or (M, S, S, 3); labels, before, after: true and predicted classes (M,).
    count: thumbnails at most, half of them on either side: a seeded sample where there are more.
    For benchmarks alone: labels of test images choose and caption what is shown, and nothing else.
    """
    true, old, new = _classes(len(class_names), labels=labels, before=before, after=after)
    if len(images) != len(true):
        raise ValueError(
            f"expected as many labels as images, got {len(true)} and {len(images)}; "
            "give the labels of these images"
        )
    names = np.array([_short(name) for name in class_names])
    generator = np.random.default_rng(seed)
    halves = {
        "Put right": ("tab:green", np.flatnonzero((old != true) & (new == true))),
        "Put wrong": ("tab:red", np.flatnonzero((old == true) & (new != true))),
    }
    down = max(len(found[: count // 2]) for _, found in halves.values())
    down = max(1, -(-down // ACROSS))
    figure = Figure(figsize=(2.8 * ACROSS + 0.6, 1.95 * down + 1), dpi=DPI, layout="constrained")
    still = ((old != new) & (old != true) & (new != true)).sum()
    figure.suptitle(
        f"Predictions changed by adaptation: {(old != new).sum():,} of {len(true):,} images "
        f"({still:,} wrong before and after)"
    )
    parts = figure.subfigures(1, 2, squeeze=False, wspace=0.04)[0]
    for part, (title, (colour, found)) in zip(parts, halves.items(), strict=True):
        ids = np.sort(generator.permutation(found)[: count // 2])
        shown = f", {len(ids)} of them shown" if len(ids) < len(found) else ""
        part.suptitle(f"{title}: {len(found):,}{shown}", fontsize=11)
        texts = [
            "was {}\n→ now {}\n(truth {})".format(*row)
            for row in names[np.stack([old, new, true], axis=1)[ids]]
        ]
        _draw_thumbnails(part, images[ids], texts, down, colour)
    save_figure(figure, path, caption)


def _draw_thumbnails(
    half: SubFigure, images: NDArray[np.uint8], texts: Sequence[str], down: int, colour: str
) -> None:
    """A grid of framed images, a text below each; or a word where there are none."""
    panels = half.subplots(down, ACROSS, squeeze=False)
    for panel in panels.flat[len(images) :]:
        panel.set_axis_off()
    if not len(images):
        half.text(0.5, 0.5, "none", ha="center", va="center", color="0.5")
    for panel, image, text in zip(panels.flat, images, texts, strict=False):
        panel.imshow(image, cmap="gray", vmin=0, vmax=255)
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set(color=colour, linewidth=2)
        panel.set_xlabel(text, fontsize=7, parse_math=False)


def _short(name: str) -> str:
    return name if len(name) <= SHOWN_LETTERS else f"{name[: SHOWN_LETTERS - 1]}…"


def _classes(num_classes: int, **given: ArrayLike) -> list[NDArray[np.int64]]:
    """The given classes as arrays; ValueError unless alike in shape (M,), M > 0, and 0..N-1."""
    arrays = [np.asarray(array) for array in given.values()]
    shapes = {name: array.shape for name, array in zip(given, arrays, strict=True)}
    if len(set(shapes.values())) > 1 or arrays[0].ndim != 1 or not len(arrays[0]):
        raise ValueError(f"expected {', '.join(given)} of one shape (M,), M > 0, got {shapes}")
    for name, array in zip(given, arrays, strict=True):
        whole = np.issubdtype(array.dtype, np.integer)
        if not whole or not 0 <= array.min() <= array.max() < num_classes:
            raise ValueError(
                f"{name} must be whole numbers in 0..{num_classes - 1}, one for each class name, "
                f"got {array.dtype} {array.min()}..{array.max()}"
            )
    return arrays
