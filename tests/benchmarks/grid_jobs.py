"""Jobs for a grid that leave marks in a folder; apart, as each worker imports them: no torch."""

import os
import signal
import time
from pathlib import Path

JOBS = ("a", "b", "c")
PARTS = ("1", "2")
SETTINGS = ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")
ALL = frozenset(job + part for job in JOBS for part in PARTS)


def work(job: str, folder: Path, times: int) -> None:
    """Parts that are skipped once done; `c2` kills its process `times` times, all else done."""
    for part in PARTS:
        name = job + part
        if done(folder, name):
            continue
        with (folder / f"{name}.runs").open("a") as runs:
            runs.write(" ".join([str(os.getpid()), *(str(os.environ.get(n)) for n in SETTINGS)]))
            runs.write("\n")
        if name == "c2" and len(runs_of(folder, name)) <= times:
            while not all(done(folder, other) for other in ALL - {name}):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"{name}.done").touch()


def fail(job: str, folder: Path) -> None:
    with (folder / "runs").open("a") as runs:
        runs.write(job)
    raise ZeroDivisionError(f"by {job}")


def sleep(job: str, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(300)


def is_running(process: str) -> bool:
    """As Linux says; one that has ended may still be listed until its parent looks."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def done(folder: Path, name: str) -> bool:
    return (folder / f"{name}.done").exists()


def runs_of(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.runs").read_text().splitlines()


def counts(folder: Path) -> dict[str, int]:
    """How often each part was begun."""
    return {path.stem: len(runs_of(folder, path.stem)) for path in folder.glob("*.runs")}


def processes_and_settings(folder: Path) -> tuple[set[str], set[str]]:
    """The processes that ran parts, and what SETTINGS they had."""
    pairs = [
        line.split(" ", 1) for path in folder.glob("*.runs") for line in runs_of(folder, path.stem)
    ]
    return {process for process, _ in pairs}, {settings for _, settings in pairs}
