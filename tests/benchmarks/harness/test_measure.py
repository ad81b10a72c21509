import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harness import measure
from benchmarks.harness.measure import commit, device_name, measured, peak_memory_mb, versions

MEGABYTE = 1024**2


def peak_can_be_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return "VmHWM" in Path("/proc/self/status").read_text()


def touch(megabytes: int) -> None:
    """Hold that much memory for a moment; large arrays go back to the system when freed."""
    np.ones(megabytes * MEGABYTE, dtype=np.uint8).sum()


def test_seconds_are_those_of_the_block():
    with measured() as spent:
        assert spent.seconds == 0
        time.sleep(0.05)
    assert 0.05 <= spent.seconds < 5
    seconds = spent.seconds
    time.sleep(0.01)
    assert spent.seconds == seconds


def test_peak_memory_holds_what_the_block_held():
    with measured() as spent:
        touch(100)
    assert 100 < spent.peak_memory_mb < 64 * 1024


@pytest.mark.skipif(not peak_can_be_reset(), reason="the system does not reset memory peaks")
def test_peak_memory_is_that_of_the_block_alone():
    with measured() as large:
        touch(150)
    with measured() as small:
        touch(1)
    assert small.peak_memory_mb < large.peak_memory_mb - 100


def test_peak_memory_is_known_without_proc(monkeypatch):
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert 10 < peak_memory_mb() < 64 * 1024


def git(folder: Path, *arguments: str) -> None:
    named = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (root / "file").write_text("one")
    git(root, "add", "file")
    git(root, "commit", "-qm", "one")
    monkeypatch.setattr(measure, "ROOT", root)
    return root


def test_commit_is_marked_where_tracked_files_differ(repository):
    clean = commit()
    assert len(clean) == 12 and int(clean, 16) >= 0
    (repository / "untracked").write_text("two")
    assert commit() == clean
    (repository / "file").write_text("two")
    assert commit() == clean + "+"


def test_results_that_a_run_adds_do_not_mark_the_commit(repository):
    rows = repository / "benchmarks" / "results" / "digits" / "results.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("one")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "rows")
    clean = commit()
    rows.write_text("two")
    assert commit() == clean
    (repository / "file").write_text("two")
    assert commit() == clean + "+"


def test_commit_is_unknown_outside_git(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    assert commit() == "unknown"


def test_commit_is_unknown_without_a_git_command(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


def test_commit_is_unknown_where_nothing_was_committed(repository, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    monkeypatch.setattr(measure, "ROOT", empty)
    assert commit() == "unknown"


def test_commit_is_not_that_of_a_repository_the_package_is_installed_in(repository, monkeypatch):
    installed = repository / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(measure, "ROOT", installed)
    assert commit() == "unknown"


def test_versions_name_what_a_result_depends_on():
    found = versions()
    assert {"python", "torch", "numpy", "da-compose"} <= found.keys()
    assert all(found.values())


def test_device_name_says_which_processor():
    name = device_name(torch.device("cpu"))
    assert name.startswith("cpu: ") and len(name) > len("cpu: ")
