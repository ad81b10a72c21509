"""Child processes of trials, forked from a server that has imported what commands need.

So a command takes a tenth of a second, where a new Python takes five. Each child leads a session of
its own: whoever is left alive after its end is found by that, and ended.
"""

import atexit
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.reliability.outcome import Wrong

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "benchmarks.reliability.commands",
        *(f"benchmarks.cli.{name}" for name in ("adapt", "bench", "evaluate", "export", "predict")),
        *(f"benchmarks.cli.{name}" for name in ("prepare", "pretrain", "tasks")),
        "benchmarks.reports.html",
        "torch._dynamo",  # of torch's optimizers, at the first one
    ]
)
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}
LIMIT = 120.0  # seconds that a child may take
GRACE = 20.0  # seconds in which what a child started ends after it; importing torch takes some


@dataclass(frozen=True)
class Stop:
    """A signal to a child at its n-th file event below its folder, or after so many seconds."""

    sign: signal.Signals
    event: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a child ended; `events` are the files it opened, moved or removed below its folder."""

    code: int
    said: str
    errors: str
    seconds: float
    events: int


def call(
    function: Callable[..., None],
    *arguments: Any,
    folder: Path,
    stop: Stop | None = None,
    largest: int | None = None,
) -> Ended:
    """Call a function in a child that works in `folder`; see `Stop`.

    largest: bytes that a file may have, as if the disk were full then. Raises Wrong where the child
    takes longer than `LIMIT`, or leaves processes alive.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(3)]
    ends = [written for _, written in pipes]
    how = (folder, stop, largest)
    process = CONTEXT.Process(target=_child, args=(function, arguments, how, *ends))
    launched = began = time.perf_counter()
    process.start()
    for end in ends:
        end.close()
    read = [end for end, _ in pipes]
    texts, told = [b"", b""], list[int]()
    late = stop.seconds if stop is not None else None
    while process.is_alive():
        if not told:  # it has not begun
            began = time.perf_counter()
        passed = time.perf_counter() - began
        if late is not None and stop is not None and passed >= late:
            _signal(process.pid, stop.sign)
            late = None
        if time.perf_counter() - launched > LIMIT:
            _signal(process.pid, signal.SIGKILL)
            raise Wrong(f"no end after {LIMIT:.0f} seconds")
        _gather(read, texts, told, 0.05 if late is None else min(0.05, max(0.0, late - passed)))
    seconds = time.perf_counter() - began
    process.join()
    _gather(read, texts, told, 0.0)
    for end in read:
        end.close()
    code = process.exitcode if process.exitcode is not None else -1
    _end_what_is_left(process.pid)
    said, errors = (os.fsdecode(text) for text in texts)
    return Ended(code, said, errors, seconds, told[-1] if told else 0)


def _child(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    how: tuple[Path, Stop | None, int | None],
    out: Connection,
    errors: Connection,
    told: Connection,
) -> None:
    folder, stop, largest = how
    os.setsid()
    os.dup2(out.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)  # the server's may have been a file's
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ |= {
        "TMPDIR": str(folder / "tmp"), "DA_COMPOSE_CACHE": str(folder / "cache"),
        "DA_COMPOSE_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    os.environ.pop("DA_COMPOSE_DATA", None)
    tempfile.tempdir = None
    seed_all()
    counted = [0]
    _count_events(str(folder), counted, stop)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    code = None
    told.send(0)
    try:
        function(*arguments)
        sys.stdout.flush()
    except SystemExit as end:
        code = end.code
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it comes too late
        told.send(counted[0])
    _finish()
    sys.exit(code)


def _finish() -> None:
    """As at the end of a Python of its own: joblib ends its processes then."""
    cast(Any, threading)._shutdown()
    atexit._run_exitfuncs()


def seed_all() -> None:
    """As in a process of its own: nothing of what the server or another trial drew."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global one is meant
    random.seed(0)


def _count_events(folder: str, counted: list[int], stop: Stop | None) -> None:
    """Count file events below the folder; send the signal at the one that is asked for."""

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not arguments or not isinstance(arguments[0], (str, Path)):
            return
        if str(arguments[0]).startswith(folder):
            counted[0] += 1
            if stop is not None and counted[0] == stop.event:
                os.kill(os.getpid(), stop.sign)

    sys.addaudithook(count)


def _gather(read: list[Connection], texts: list[bytes], told: list[int], seconds: float) -> None:
    """Take what a child has written by now; waits at most so long for any of it."""
    for end in wait(read, seconds):
        place = read.index(cast(Connection, end))
        if place == 2:
            try:
                told.append(read[2].recv())
            except EOFError:
                time.sleep(0.005)
            continue
        os.set_blocking(read[place].fileno(), False)
        while True:
            try:
                part = os.read(read[place].fileno(), 65_536)
            except BlockingIOError:
                break
            texts[place] += part
            if not part:
                time.sleep(0.005)  # it has closed it, and ends
                break


def _signal(process: int | None, sign: signal.Signals) -> None:
    """To a child that this process has started, where it is still there."""
    if process is not None:
        try:
            os.kill(process, sign)
        except ProcessLookupError:
            return


def _end_what_is_left(leader: int | None) -> None:
    """Wrong where processes of a child's session outlive it; they are ended."""
    until = time.monotonic() + GRACE
    while left := _of_session(leader):
        if time.monotonic() > until:
            for process in left:
                _signal(process, signal.SIGKILL)
            raise Wrong(f"{len(left)} processes were left alive")
        time.sleep(0.05)


def _of_session(leader: int | None) -> list[int]:
    """Processes of a session that run, by number."""
    found = []
    for state in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = state.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if fields[3] == str(leader) and fields[0] not in "ZX":
            found.append(int(state.parent.name))
    return found
