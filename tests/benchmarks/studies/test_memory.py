"""Peak memory of the commands: how it is sampled, and what is made of it."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies import memory
from benchmarks.studies.memory import FULL, markdown, measure_memory, peak_anonymous, write_pictures
from da_compose.folders import list_pictures
from da_compose.pictures import read_picture
from tests.benchmarks.calls import succeed
from tests.benchmarks.conftest import TINY

MB = 2**20
BASE = "import time, numpy as np; "


def peak_of(code: str) -> int:
    return peak_anonymous((sys.executable, "-c", f"{BASE}{code}; time.sleep(0.2)"))


def test_peak_counts_what_is_allocated_and_not_what_is_mapped(tmp_path: Path) -> None:
    file = tmp_path / "pixels.npy"
    mapped = (f"a = np.memmap({str(file)!r}, np.uint8, 'w+', shape=(100 * {MB},)); a[:] = 1; "
              "time.sleep(0.2)")  # fmt: skip
    nothing = peak_of("pass")
    assert 95 * MB < peak_of(f"a = np.ones(100 * {MB}, np.uint8)") - nothing < 110 * MB
    assert abs(peak_of(mapped) - nothing) < 10 * MB


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(OSError, match=r"SystemExit.*ended with 3"):
        peak_of("raise SystemExit(3)")


def test_pictures_are_as_many_as_asked_for_and_readable(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p", 60)
    paths = list_pictures(tmp_path / "p")
    assert len(paths) == 60
    assert all(read_picture(path, 8).std() > 0 for path in paths)
    assert len({path.read_bytes() for path in paths}) == 50


def test_growth_is_counted_from_full_batches_and_of_the_latest_rows() -> None:
    peaks = {100: 5e6, FULL: 10e6, FULL + 500: 10.5e6, 10 * FULL: 19e6}
    rows = [
        {"command": command, "pictures": count, "peak_bytes": peak * times, "seconds": 1.5}
        for times in (7, 1)
        for command in ("predict", "adapt")
        for count, peak in peaks.items()
    ]
    lines = markdown(rows).splitlines()
    assert lines[2:6] == [
        "| adapt | 100 | 5 | - | 1.5 |",
        "| adapt | 1,000 | 10 | - | 1.5 |",
        "| adapt | 1,500 | 10 | 1,000 | 1.5 |",
        "| adapt | 10,000 | 19 | 1,000 | 1.5 |",
    ]
    assert len(lines) == 2 + 8


def test_both_commands_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here in this process: what is measured of another is above."""

    def called(command: Sequence[str]) -> int:
        assert tuple(command[: len(memory.CLI)]) == memory.CLI
        succeed(*command[len(memory.CLI) :])
        return 100 * MB

    monkeypatch.setattr(memory, "peak_anonymous", called)
    monkeypatch.setattr(memory, "NETWORK", replace(TINY, image_size=64))
    monkeypatch.setattr(memory, "ADAPT_STEPS", 1)
    rows = list(measure_memory((3,)))
    assert [(row["command"], row["pictures"]) for row in rows] == [("adapt", 3), ("predict", 3)]
    assert all(row["peak_bytes"] == 100 * MB for row in rows)
    assert {"commit", "versions", "seed", "device", "seconds"} <= set(rows[0])
