"""The table of the trust study: what start and guard did, and how right estimates were."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from adapters.config import BASELINES, OUTCOME
from benchmarks.studies.conditions import CONDITIONS
from benchmarks.studies.guard import table

GUARDED, ALL = "guarded", "in all"
ESTIMATED = ["error", "covered", "width", "calibration, raw", "calibrated"]
GUARD_SAID = (
    "Points over the better of source only and AdaBN: of the start, and of what the guard keeps. "
    "Harm: more than a point below the start, caught where the guard refuses it."
)
ESTIMATES_SAID = (
    "Estimates against the truth in points, of source only, AdaBN, start and outcome: mean "
    "distance, share of 90 % intervals that hold it, their width. Expected calibration error of "
    "confidences."
)
HARM = 0.01  # below the start, from which on learning did harm


def summary(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row of each condition and of all, for each kind of data and of backbone."""
    frame = pd.DataFrame([_figures(line) for line in lines])
    parts = []
    for data, group in frame.groupby("data", sort=False):
        for condition in (*CONDITIONS, ALL):
            own = group[(group.condition == condition) | (condition == ALL)]
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
    models = ("source_only", "batch_norm", "start", GUARDED)
    told = {}
    if said:  # no estimate of what means nothing
        told = {
            "error": np.mean([abs(said[name]["accuracy"] - true[name]) for name in models]),
            "covered": np.mean(
                [said[name]["low"] <= true[name] <= said[name]["high"] for name in models]
            ),
            "width": np.mean([said[name]["high"] - said[name]["low"] for name in models]),
        }
    return (
        {
            "condition": line["condition"],
            "data": _data(line),
            "start_gain": true["start"] - better,
            "gain": true[GUARDED] - better,
            "harmful": true[OUTCOME] < true["start"] - HARM,
            "learned": "verdict" in line,
            "trusted": line.get("verdict", {}).get("trusted", True),
            "meaningless": not said,
        }
        | told
        | line["calibration_error"]
    )


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
