"""Result rows: one JSON line for each finished cell of a benchmark."""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

from da_compose.storage.locks import lock

ALLOWED = {
    "profile": ("quick", "full"),
    "data": ("files", "download", "bundled"),
    "trains": ("nothing", "mixture_weights", "input_adapter", "batch_norm", "all"),
    "network": ("compositional", "unshared"),
    "recipe": ("paper", "strong", "strong-long", "strong-128", "lite0"),
}
PERCENTS = ("accuracy", "last_accuracy", "source_only", "batch_norm")
AMOUNTS = (
    "seed",
    "learned_parameters",
    "total_parameters",
    "adapter_bytes",
    "seconds",
    "peak_memory_mb",
)
FORMER_PARTS: dict[str, str] = {"affine": "batch_norm", "logits": "heads"}
Row = TypeVar("Row")
NAMES = ("benchmark", "target", "strategy", "data_fingerprint")


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """Outcome of one cell: a strategy on one backbone, target and seed."""

    benchmark: str
    profile: str  # quick, full
    data: str  # where the images came from: files, download, bundled, or several joined by +
    data_fingerprint: str
    sources: list[str]
    target: str
    seed: int
    strategy: str
    trains: str  # nothing, or one of `adapters.parts.PARTS`
    network: str  # compositional, unshared
    recipe: str  # paper, strong, strong-long, strong-128, lite0
    oracle: bool  # whether target labels were used
    accuracy: float  # percent on the target's test split, as the next three
    last_accuracy: float  # of the last step's iterate, where another was kept without labels
    source_only: float
    batch_norm: float
    learned_parameters: int
    total_parameters: int
    adapter_bytes: int
    seconds: float
    peak_memory_mb: float
    selection: str  # how anything was chosen without labels
    commit: str
    device: str
    versions: dict[str, str]
    config: dict[str, Any]

    def __post_init__(self) -> None:
        self._check_types()
        for name, allowed in ALLOWED.items():
            parts = getattr(self, name).split("+") if name == "data" else [getattr(self, name)]
            if not set(parts) <= set(allowed):
                self._refuse(name, f"one of {', '.join(allowed)}")
        for name in NAMES:
            if not getattr(self, name):
                self._refuse(name, "a name, not nothing")
        for name in PERCENTS:
            if not 0 <= getattr(self, name) <= 100:
                self._refuse(name, "percent from 0 to 100")
        for name in AMOUNTS:
            if not 0 <= getattr(self, name) < math.inf:
                self._refuse(name, "a finite number, at least 0")
        if not self.sources or self.target in self.sources:
            self._refuse("sources", f"one or more domains other than the target {self.target!r}")
        if self.learned_parameters > self.total_parameters:
            self._refuse("learned_parameters", f"at most the total of {self.total_parameters}")
        if (self.trains == "nothing") != (self.learned_parameters == 0):
            self._refuse("learned_parameters", f"0 exactly where nothing trains, not {self.trains}")

    def _check_types(self) -> None:
        for field in fields(self):
            value: object = getattr(self, field.name)
            kind: Any = get_origin(field.type) or field.type
            accepted = (float, int) if kind is float else kind
            if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                self._refuse(field.name, f"of type {kind.__name__}")

    def _refuse(self, name: str, expected: str) -> None:
        raise ValueError(
            f"result row: {name} is {getattr(self, name)!r}, expected {expected}; "
            "correct what wrote the row"
        )


CELL = (
    "benchmark",
    "profile",
    "data",
    "data_fingerprint",
    "sources",
    "target",
    "seed",
    "strategy",
    "trains",
    "network",
    "recipe",
    "oracle",
)


def cell(named: Mapping[str, Any]) -> tuple[object, ...]:
    """What a row is the result of, by its fields' names; equal for two runs of the same thing."""
    return tuple(str(named[name]) for name in CELL)


def latest(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """The last row of each cell, in the order in which the cells first appeared."""
    return list({cell(vars(row)): row for row in rows}.values())


def append_row(path: Path, row: ResultRow) -> None:
    """Add one row; see `append_line`."""
    append_line(path, asdict(row))


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Add one line; several processes may append at once. A torn last line is removed first."""
    try:
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"result row cannot be written as JSON ({error}); "
            "keep config to finite numbers, strings, lists and mappings"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        lock(descriptor)
        line = _mended(path, descriptor) + line
        written = os.write(descriptor, line)
    finally:
        os.close(descriptor)
    if written < len(line):
        raise OSError(f"{path}: wrote {written} of {len(line)} bytes; make room on the disk")


def _mended(path: Path, descriptor: int) -> bytes:
    """What must stand before the next line; cuts a torn last line off."""
    text = path.read_bytes()
    tail = text.rpartition(b"\n")[2]
    if not tail:
        return b""
    if _is_json(tail):
        return b"\n"
    warnings.warn(f"{path}: removed a torn last line of {len(tail)} bytes", stacklevel=3)
    os.truncate(descriptor, len(text) - len(tail))
    return b""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def read_rows(path: Path) -> list[ResultRow]:
    """Every row of the file; none if it is absent. A torn last line is skipped with a warning."""
    return list(_read(path, lambda values: ResultRow(**named_anew(values))))


def named_anew(values: Any) -> Any:
    """A line whose parts have the names of today: rows of before version 0.2 had others."""
    trains = values.get("trains") if isinstance(values, dict) else None
    if isinstance(trains, str):
        return values | {"trains": FORMER_PARTS.get(trains, trains)}
    if isinstance(trains, list):
        return values | {"trains": [FORMER_PARTS.get(part, part) for part in trains]}
    return values


def read_lines(path: Path) -> list[dict[str, Any]]:
    """As `read_rows`, for lines of any kind."""
    return list(_read(path, dict))


def _read(path: Path, make: Callable[[dict[str, Any]], Row]) -> Iterator[Row]:
    if not path.exists():
        return
    *lines, tail = path.read_bytes().split(b"\n")
    if tail and not _is_json(tail):
        warnings.warn(f"{path}: skipped a torn last line of {len(tail)} bytes", stacklevel=2)
        tail = b""
    for number, line in enumerate([*lines, tail], start=1):
        if not line.strip():
            continue
        try:
            yield make(json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: expected a result row, got {line[:60]!r} ({error}); "
                "remove or correct the line"
            ) from error
