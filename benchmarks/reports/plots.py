"""Plots of a benchmark as PNG files: accuracy, mixtures and embeddings."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from sklearn.manifold import TSNE

from benchmarks.harness.rows import ALLOWED, ResultRow
from benchmarks.reports.tables import SIDES, TRAINED, display_name, source_line, summarize
from da_compose.storage.files import replacing

COLOURS = {"compositional": "tab:blue", "unshared": "tab:orange"}
MARKERS = {
    "mixture_weights": "o",
    "input_adapter": "s",
    "batch_norm": "^",
    "all": "D",
    "nothing": "x",
}
BASELINE_STYLES: Mapping[str, Any] = {
    "source_only": ":",
    "batch_norm": "--",
    "chosen_start": "-.",
}
DPI = 130
RISES = [11 * step * sign for step in range(20) for sign in (1, -1)]  # of labels, in points
MAX_POINTS = 1500  # in both panels of a t-SNE
COLOURED_CLASSES = 20  # more share colours


def save_figure(figure: Figure, path: Path, caption: str) -> None:
    """Write a PNG with the caption below, whole or not at all."""
    figure.supxlabel(caption, fontsize=8, color="0.35")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def plot_accuracy(rows: Iterable[ResultRow], path: Path) -> None:
    """Accuracy (mean ± std over seeds) against learned parameters, one panel per recipe."""
    rows = list(rows)
    summary = summarize(rows)
    recipes = [recipe for recipe in ALLOWED["recipe"] if (summary.recipe == recipe).any()]
    figure = Figure(figsize=(9, 1.2 + 4.4 * len(recipes)), dpi=DPI, layout="constrained")
    figure.suptitle("Accuracy on the target against learned parameters")
    panels = figure.subplots(len(recipes), 1, sharex=True, squeeze=False)[:, 0]
    labels = []
    for panel, recipe in zip(panels, recipes, strict=True):
        records = summary.loc[summary.recipe == recipe].to_dict("records")
        seeds = sorted({row.seed for row in rows if row.recipe == recipe})
        named = f"Recipe: {recipe}; seeds: {', '.join(map(str, seeds))}"
        panel.set_title(named, fontsize=10)
        panel.set_ylabel("Test accuracy (%)")
        panel.margins(y=0.12)
        drawn = [label for record in records if (label := _draw_result(panel, record))]
        labels.append(_one_a_point(drawn))
        _add_legend(panel, records)
    panels[-1].set_xscale("symlog", linthresh=1)
    panels[-1].set_xlim(0, 10 * max(10, summary.learned_parameters.max()))
    panels[-1].set_xlabel("Learned parameters (symmetric log axis: 0 at the left edge)")
    caption = source_line(rows[0])
    figure.supxlabel(caption, fontsize=8, color="0.35")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # places the panels, so that sizes are known
    for panel, annotations in zip(panels, labels, strict=True):
        _place_labels(panel, annotations, renderer)
    save_figure(figure, path, caption)


def _draw_result(panel: Axes, record: Mapping) -> Annotation | None:
    """A baseline as a line across, anything else as a labelled point with its spread."""
    colour = "tab:green" if record["oracle"] else COLOURS[record["network"]]
    if record["strategy"] in BASELINE_STYLES and not record["oracle"]:
        panel.axhline(
            record["accuracy"], color=colour, linestyle=BASELINE_STYLES[record["strategy"]]
        )
        return None
    place = (record["learned_parameters"], record["accuracy"])
    panel.errorbar(
        *place,
        yerr=record["std"] if len(record["seeds"]) > 1 else None,
        color=colour,
        marker=MARKERS[record["trains"]],
        markersize=6,
        markeredgecolor="white",
        capsize=2,
        linestyle="none",
        zorder=3,
    )
    name = f"oracle, {record['network']}" if record["oracle"] else display_name(record["strategy"])
    return panel.annotate(
        name,
        place,
        xytext=(0, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=colour,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 3},
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )


def _add_legend(panel: Axes, records: Sequence[Mapping]) -> None:
    """What colours, markers and lines mean, for what the panel shows."""
    handles: dict[str, Line2D] = {}
    for record in records:
        network, side = record["network"], SIDES[record["network"]]
        colour = "tab:green" if record["oracle"] else COLOURS[network]
        if record["strategy"] in BASELINE_STYLES and not record["oracle"]:
            name = f"{display_name(record['strategy'])}, {network}"
            handles[name] = Line2D(
                [], [], color=colour, linestyle=BASELINE_STYLES[record["strategy"]]
            )
            continue
        trained = TRAINED[record["trains"]] or "nothing"
        name = f"{trained}, {network}" if trained != side else f"{side} ({network})"
        if record["oracle"]:
            name = f"oracle, {trained} (target labels)"
        handles[name] = Line2D(
            [], [], color=colour, marker=MARKERS[record["trains"]], linestyle="none"
        )
    panel.legend(
        handles.values(), handles.keys(), fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
    )


def _one_a_point(labels: Sequence[Annotation]) -> list[Annotation]:
    """Of results at the same place, all their names in one label, a line each."""
    kept: dict[tuple[Any, ...], Annotation] = {}
    for label in labels:
        first = kept.setdefault((*label.xy, label.get_color()), label)
        if first is not label:
            first.set_text(f"{first.get_text()}\n{label.get_text()}")
            label.remove()
    return list(kept.values())


def _place_labels(panel: Axes, labels: Sequence[Annotation], renderer: RendererAgg) -> None:
    """Move each label to the nearest free place: left of the smallest sets' points, else right."""
    to_pixels = panel.transData.transform
    taken = [Bbox([to_pixels(label.xy)] * 2).padded(5) for label in labels]
    for bars in panel.collections:
        if isinstance(bars, LineCollection):
            taken += [Bbox(to_pixels(segment)).padded(2) for segment in bars.get_segments()]
    smallest = min((label.xy[0] for label in labels), default=0)
    for label in sorted(labels, key=lambda label: label.xy[1]):
        first = -1 if label.xy[0] == smallest else 1
        box = Bbox.null()
        for rise, side in product(RISES, (first, -first)):
            label.set_position((side * (9 + min(abs(rise), 12)), rise))
            label.set_horizontalalignment("left" if side > 0 else "right")
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer)
            inside = panel.bbox.contains(*box.min) and panel.bbox.contains(*box.max)
            if inside and not box.count_overlaps(taken):
                break
        taken.append(box)


def plot_mixtures(mixtures: Mapping[str, np.ndarray], path: Path, *, caption: str = "") -> None:
    """Mixture weights xi (L, K) of each domain, and how far the domains are from each other."""
    shapes = {xi.shape for xi in mixtures.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"expected one or more mixtures of one shape (L, K), got shapes {sorted(shapes)}; "
            "plot the domains of one backbone"
        )
    across = min(6, len(mixtures))
    down = -(-len(mixtures) // across)
    figure = Figure(figsize=(1.5 * across + 5.5, 1.2 + 3.8 * down), dpi=DPI, layout="constrained")
    figure.suptitle("Mixture weights of each domain (paper, figure 2)")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.5 * across + 0.7, 4.8))[0]
    panels = left.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(mixtures) :]:
        panel.set_axis_off()
    for panel, (domain, xi) in zip(panels.flat, mixtures.items(), strict=False):
        panel.imshow(xi, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set_title(domain, fontsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.supxlabel("Template", fontsize=10)
    left.supylabel("Layer", fontsize=10)
    left.colorbar(panels[0, 0].images[0], ax=panels, label="Mixture weight")
    _draw_distances(right.subplots(), mixtures)
    save_figure(figure, path, caption)


def _draw_distances(panel: Axes, mixtures: Mapping[str, np.ndarray]) -> None:
    xi = np.stack(list(mixtures.values()))  # (D, L, K)
    distances = np.abs(xi[:, None] - xi[None]).sum(-1).mean(-1) / 2  # (D, D)
    image = panel.imshow(distances, vmin=0, vmax=1, cmap="magma_r")
    shown = distances if len(distances) <= 8 else distances[:0]  # values need room
    for (y, x), distance in np.ndenumerate(shown):
        colour = "white" if distance > 0.5 else "black"
        panel.text(x, y, f"{distance:.2f}", ha="center", va="center", fontsize=7, color=colour)
    panel.set_xticks(range(len(mixtures)), list(mixtures), rotation=45, ha="right", fontsize=8)
    panel.set_yticks(range(len(mixtures)), list(mixtures), fontsize=8)
    panel.set_title("Distance between domains", fontsize=10)
    panel.figure.colorbar(image, ax=panel, shrink=0.7, label="Mean over layers of L1 / 2")


def plot_embeddings(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    target: str,
    path: Path,
    seed: int,
    *,
    class_names: Sequence[str] = (),
    caption: str = "",
) -> None:
    """t-SNE of features (M, F) of every domain before and after adaptation, one fit each.

    `labels` (M,) only colour the points; the legend calls them by `class_names`, or by number, as
    long as there are colours for all. Both panels show the same seeded subsample of images.
    """
    _check_embeddings(before, after, labels, target)
    chosen = _subsample({domain: len(ids) for domain, ids in labels.items()}, target, seed)
    colours = np.concatenate([labels[domain][ids] for domain, ids in chosen.items()])
    is_target = np.repeat([domain == target for domain in chosen], [*map(len, chosen.values())])
    figure = Figure(figsize=(11, 5.8), dpi=DPI, layout="constrained")
    figure.suptitle(f"t-SNE of features, target {target} (one fit per panel, same images)")
    panels = figure.subplots(1, 2)
    for panel, name, features in zip(panels, ("Before", "After"), (before, after), strict=True):
        stacked = np.concatenate([features[domain][ids] for domain, ids in chosen.items()])
        perplexity = min(30.0, (len(stacked) - 1) / 3)
        fit = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        _draw_points(panel, fit.fit_transform(stacked.astype(np.float32)), colours, is_target)
        panel.set_title(f"{name} adaptation", fontsize=10)
        panel.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
    classes = np.unique(colours)
    handles = [
        Line2D([], [], color=_colour(label), marker="o", linestyle="none",
               label=class_names[label] if len(class_names) else str(label))
        for label in (classes if len(classes) <= COLOURED_CLASSES else ())
    ]  # fmt: skip
    for name, marker in (("sources", "."), (target, "x")):
        handles.append(Line2D([], [], color="0.3", marker=marker, linestyle="none", label=name))
    title = "Class" if len(classes) <= COLOURED_CLASSES else f"{len(classes)} classes"
    figure.legend(handles=handles, loc="outside right upper", title=title, fontsize=8)
    save_figure(figure, path, caption)


def _check_embeddings(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    target: str,
) -> None:
    sizes = [
        {domain: len(rows) for domain, rows in part.items()} for part in (before, after, labels)
    ]
    if sizes[0] != sizes[1] or sizes[0] != sizes[2] or target not in labels:
        raise ValueError(
            f"expected the same domains and counts before, after and in labels, with {target!r} "
            f"among them, got {sizes}; give the same images in all three"
        )
    if sum(sizes[0].values()) < 4:
        raise ValueError(f"expected 4 or more points to embed, got {sizes[0]}; give more images")


def _subsample(counts: Mapping[str, int], target: str, seed: int) -> dict[str, np.ndarray]:
    """Which images of each domain to show: the target gets a third, the sources share the rest."""
    generator = np.random.default_rng(seed)
    total = MAX_POINTS // 2  # each panel shows all of them
    share = (total - total // 3) // max(1, len(counts) - 1)
    limits = {domain: total // 3 if domain == target else share for domain in counts}
    return {
        domain: np.sort(generator.permutation(count)[: limits[domain]])
        for domain, count in counts.items()
    }


def _colour(label: int) -> tuple[float, float, float, float]:
    return matplotlib.colormaps["tab10" if 0 <= label < 10 else "tab20b"](int(label) % 20)


def _draw_points(
    panel: Axes, points: np.ndarray, labels: np.ndarray, is_target: np.ndarray
) -> None:
    colours = np.array([_colour(label) for label in labels])
    for mask, style in (
        (~is_target, {"marker": ".", "s": 14, "alpha": 0.45, "linewidths": 0}),
        (is_target, {"marker": "x", "s": 22, "linewidths": 1.0}),
    ):
        panel.scatter(*points[mask].T, c=colours[mask], **style)
