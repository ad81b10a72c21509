"""Figures of the tasks benchmark: self-organization (paper, Figure 2) and transfer's few shots."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adapters.transfer import NEAREST, RANDOM
from benchmarks.reports.plots import DPI, save_figure
from benchmarks.tasks.claims import filter_of, joint_mixtures, set_of
from benchmarks.tasks.organization import agreement, mixture_distances
from benchmarks.tasks.plan import TRAINED
from benchmarks.tasks.tables import (
    accuracies,
    label_counts,
    labels_in_words,
    pick,
    trained_in_words,
)
from benchmarks.tasks.train import TaskRow

LINES = {NEAREST: ("chosen", "-"), RANDOM: ("random", ":")}  # what a start is called and drawn as


def plot_organization(rows: Sequence[TaskRow], path: Path, caption: str) -> None:
    """Distances of mixtures by half of the layers, and agreement within groups by layer.

    Left: total variation distance of every two tasks, mean over seeds, in early and late layers.
    Right: how much closer tasks of one image transform, or of one data set, are than others.
    """
    of_seed = joint_mixtures(rows)
    names = [*next(iter(of_seed.values()))]
    distances = torch.stack(
        [mixture_distances(torch.stack([m[n] for n in names])) for m in of_seed.values()]
    )  # (seeds, L, D, D)
    half = distances.shape[1] // 2
    figure = Figure(figsize=(14, 5), dpi=DPI, layout="constrained")
    figure.suptitle("Which tasks share which layers")
    panels = figure.subplots(1, 3)
    halves = {"Early": distances[:, :half], "Late": distances[:, -half:]}
    highest = max(float(part.mean(dim=(0, 1)).max()) for part in halves.values())
    for panel, (title, part) in zip(panels, halves.items(), strict=False):
        image = panel.imshow(part.mean(dim=(0, 1)).numpy(), vmin=0, vmax=highest, cmap="viridis")
        panel.set_title(f"{title} layers: distance of mixtures", fontsize=10)
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        figure.colorbar(image, ax=panel, shrink=0.7)
    layers = np.arange(1, distances.shape[1] + 1)
    for label, groups, colour in (
        ("one image transform", [filter_of(name) for name in names], "tab:blue"),
        ("one data set", [set_of(name) for name in names], "tab:orange"),
    ):
        values = torch.stack([agreement(each, groups) for each in distances]).numpy()
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1 if len(values) > 1 else 0)
        panels[2].plot(layers, mean, marker="o", color=colour, label=f"tasks of {label}")
        panels[2].fill_between(layers, mean - deviation, mean + deviation, color=colour, alpha=0.2)
    panels[2].axhline(0, color="0.5", linewidth=0.8)
    panels[2].set_title("Closer than other tasks, by layer", fontsize=10)
    panels[2].set_xlabel("Layer (bands: std over seeds)")
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[2].legend(fontsize=8)
    save_figure(figure, path, caption)


def plot_few_shots(rows: Sequence[TaskRow], path: Path, caption: str) -> None:
    """Accuracy on each new task against labels a class, mean and deviation over seeds.

    A colour for what is learned, a line style for the start: the chosen one and a random one.
    """
    tasks, counts = list(dict.fromkeys(row.task for row in rows)), label_counts(rows)
    figure = Figure(figsize=(4.2 * len(tasks) + 2.4, 4.4), dpi=DPI, layout="constrained")
    figure.suptitle("Transfer to a new task on a frozen bank", x=0.01, ha="left")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        for (start, (name, style)), (colour, trains) in product(LINES.items(), enumerate(TRAINED)):
            own = pick(rows, task=task, start=start, trains=trains)
            values = [accuracies(own, labels=count) for count in counts]
            panel.errorbar(
                range(len(counts)),
                [np.mean(found) if found else np.nan for found in values],
                yerr=[np.std(found, ddof=1) if len(found) > 1 else 0 for found in values],
                color=f"C{colour}",
                linestyle=style,
                marker="o",
                markersize=3,
                elinewidth=0.8,
                label=f"{trained_in_words(trains)}, {name} start",
            )
        panel.set_title(task, fontsize=10)
        panel.set_xticks(range(len(counts)), map(labels_in_words, counts))
        panel.set_xlabel("Labels a class")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("Test accuracy (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save_figure(figure, path, caption)
