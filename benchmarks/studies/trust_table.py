"""Table and picture of the trust study: what start and guard did, and how right estimates were."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adapters.config import BASELINES, OUTCOME
from benchmarks.harness.folders import ROWS
from benchmarks.harness.rows import read_lines
from benchmarks.reports.plots import DPI, save_figure
from benchmarks.studies.conditions import CONDITIONS, TASK
from benchmarks.studies.guard import table
from da_compose.estimate import FEW
from da_compose.storage.files import replacing

GUARDED, ALL = "guarded", "in all"
COLOURS = ("0.4", "tab:orange", "tab:blue", "tab:green")  # of `MODELS`
ESTIMATED = ["error", "covered", "width", "calibration, raw", "calibrated"]
GUARD_SAID = (
    "Points over the better of source only and AdaBN: of the start, and of what the guard keeps. "
    "Harm: more than a point below the start, caught where the guard refuses it. Of another task's "
    "images the models are tested on the target as well; it is not among all."
)
ESTIMATES_SAID = (
    "Estimates against the truth in points, of source only, AdaBN, start and outcome: mean "
    "distance, share of 90 % intervals that hold it, their width. Expected calibration error of "
    "confidences."
)
MODELS = {"source_only": "source only", "batch_norm": "AdaBN", "start": "start", GUARDED: "outcome"}
HARM = 0.01  # below the start, from which on learning did harm


def summary(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row of each condition and of all, for each kind of data and of backbone."""
    frame = pd.DataFrame([_figures(line) for line in lines])
    parts = []
    for data, group in frame.groupby("data", sort=False):
        for condition in (*CONDITIONS, ALL):
            all_others = (condition == ALL) & (group.condition != TASK)
            own = group[(group.condition == condition) | all_others]
            if len(own):
                harmful = own.query("learned and harmful")
                harmless = own.query("learned and not harmful")
                parts.append(
                    {
                        "data": data,
                        "condition": condition,
                        "cells": len(own),
                        "start": 100 * own.start_gain.mean(),
                        "worst start": 100 * own.start_gain.min(),
                        "guarded": 100 * own.gain.mean(),
                        "worst guarded": 100 * own.gain.min(),
                        "caught": f"{(~harmful['trusted']).sum()} of {len(harmful)}",
                        "false alarms": f"{(~harmless['trusted']).sum()} of {len(harmless)}",
                        "called meaningless": int(own.meaningless.sum()),
                        "error": 100 * own.error.mean(),
                        "covered": 100 * own.covered.mean(),
                        "width": 100 * own.width.mean(),
                        "calibration, raw": own.raw.mean(),
                        "calibrated": own.calibrated.mean(),
                    }
                )
    return pd.DataFrame(parts)


def _data(line: Mapping[str, Any]) -> str:
    kind = "development" if line["development"] else "held out"
    return f"{kind}, ImageNet weights" if line.get("pretrained") else kind


def _figures(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the table counts of one cell; errors and intervals are means over its models."""
    true, said = line["accuracy"], line["estimates"]
    better = max(true[name] for name in BASELINES)
    told = {}
    if said and line["condition"] != TASK:  # whose images have none of the classes
        told = line["calibration_error"] | {
            "error": np.mean([abs(said[name]["accuracy"] - true[name]) for name in MODELS]),
            "covered": np.mean(
                [said[name]["low"] <= true[name] <= said[name]["high"] for name in MODELS]
            ),
            "width": np.mean([said[name]["high"] - said[name]["low"] for name in MODELS]),
        }
    return {
        "condition": line["condition"],
        "data": _data(line),
        "start_gain": true["start"] - better,
        "gain": true[GUARDED] - better,
        "harmful": true[OUTCOME] < true["start"] - HARM,
        "learned": "verdict" in line,
        "trusted": line.get("verdict", {}).get("trusted", True),
        "meaningless": not said,
    } | told


def markdown(means: pd.DataFrame) -> str:
    """The summary as tables: what start and guard did, then how right the estimates were."""
    parts = []
    for question, said in (("start and guard", GUARD_SAID), ("estimates", ESTIMATES_SAID)):
        parts.append(f"{said}\n")
        for data, group in means.groupby("data", sort=False):
            own = [name for name in group.columns if name not in ("data", *ESTIMATED)]
            columns = ["condition", *ESTIMATED] if question == "estimates" else own
            lines = [
                [_cell(name, row[name]) for name in columns] for row in group.to_dict("records")
            ]
            parts.append(f"{data}: {question}\n\n{table([columns, *lines])}")
    return "\n".join(parts)


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return "-"
    return f"{value:.3f}" if name.startswith("calibrat") else f"{value:.1f}"


def plot(lines: Iterable[Mapping[str, Any]], path: Path) -> None:
    """True against estimated accuracy of every model of every cell; PNG."""
    by_data: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line["estimates"] and line["condition"] != TASK:
            by_data.setdefault(_data(line), []).append(line)
    figure = Figure(figsize=(1 + 3 * len(by_data), 3.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(by_data), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (data, cells) in zip(panels, by_data.items(), strict=True):
        panel.axline((0, 0), slope=1, color="0.5", linewidth=1)
        for name, colour in zip(MODELS, COLOURS, strict=True):
            for few, face in ((False, colour), (True, "none")):
                of = [line for line in cells if (line["images"] < FEW) == few]
                panel.scatter(
                    [100 * line["estimates"][name]["accuracy"] for line in of],
                    [100 * line["accuracy"][name] for line in of],
                    s=14, facecolors=face, edgecolors=colour,
                    label=MODELS[name] + (f", fewer than {FEW} images" if few else ""),
                )  # fmt: skip
        panel.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xlabel="Estimated (%)")
        panel.set_title(data, fontsize=9)
        panel.set_axisbelow(True)
        panel.grid(color="0.9")
    panels[0].set_ylabel("True accuracy (%)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7
    )
    save_figure(figure, path, "estimates without labels, beside the truth")


def render(folder: Path) -> None:
    """Table and picture of all lines in a folder."""
    lines = read_lines(folder / ROWS)
    with replacing(folder / "table.md") as temporary:
        temporary.write_text(markdown(summary(lines)), encoding="utf-8")
    plot(lines, folder / "estimates.png")
