"""Locks, and the one line that refuses a platform without them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from da_compose.storage.locks import alone, lock
from tests.forks import ended

ON_WINDOWS = """
import sys
import torch  # as it would be there
from click.testing import CliRunner
from benchmarks.cli.main import main

sys.modules["fcntl"] = None  # not to be imported
sys.platform = "win32"
print(CliRunner().invoke(main, ["--help"]).output)
print(CliRunner().invoke(main, ["inspect", "file"]).output.strip())
import data_prep
"""


def test_a_file_is_held_by_one_until_it_is_closed(tmp_path):
    path = tmp_path / "file"
    with path.open("w") as first:
        lock(first)
        with path.open("a") as second, pytest.raises(BlockingIOError):
            lock(second, wait=False)
    with path.open("a") as second:
        lock(second, wait=False)


def test_windows_is_refused_in_one_line_that_names_wsl():
    done = subprocess.run(
        [sys.executable, "-c", ON_WINDOWS],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Adapt one backbone" in done.stdout
    *_, before, line = done.stdout.strip().splitlines()
    assert line.startswith("Error: da-compose locks files") and "WSL" in line
    assert not before
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: da-compose locks files") and "WSL" in last


@pytest.mark.parametrize("folder", [True, False])
def test_two_runs_do_not_write_to_one_place(tmp_path, folder):
    path = tmp_path / "runs" / "x"
    with alone(path, folder=folder):
        with (
            pytest.raises(ValueError, match=r"another run writes to .*x now; wait until it has"),
            alone(path, folder=folder),
        ):
            pass
        with alone(tmp_path / "runs" / "other", folder=folder):
            pass
    with alone(path, folder=folder):
        (tmp_path / "runs" / "kept").touch()
    assert [one.name for one in path.parent.iterdir()] == ["kept"]


def test_what_a_killed_process_held_is_free(tmp_path):
    path = tmp_path / "x"

    def killed() -> None:
        with alone(path, folder=False):
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(killed) == -signal.SIGKILL
    with alone(path, folder=False):
        pass
    assert not [*tmp_path.iterdir()]
