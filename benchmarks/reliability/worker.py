"""A child for many calls of functions: forked anew where it dies or hangs."""

import os
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import CONTEXT, GRACE, LIMIT, seed_all
from benchmarks.reliability.outcome import Wrong, shortened

ADDRESSES = 4 * 2**30  # bytes that it may ask for: one file cannot take all of the machine's memory


class Worker:
    """One child for many calls of functions; another takes its place where it dies or hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: Any = None
        self.channel: Any = None

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float = LIMIT) -> Any:
        """What a function returns in the child; Wrong where the child dies, or takes longer."""
        if self.process is None:
            self._start()
        self.channel.send((function, arguments))
        try:
            if not self.channel.poll(seconds):
                raise Wrong(f"no end after {seconds:.0f} seconds")
            raised, value = self.channel.recv()
        except (EOFError, ConnectionError) as error:
            process: Any = self.process
            process.join(GRACE)
            code = process.exitcode
            self.stop()
            raise Wrong(f"the process died ({code})") from error
        except Wrong:
            self.stop()
            raise
        if raised is not None:
            raise raised
        return value

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.channel, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(self.folder, other), daemon=True)
        self.process.start()
        other.close()

    def stop(self) -> None:
        """End the child."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.channel.close()
            self.process = self.channel = None


def _serve(folder: Path, channel: Connection) -> None:
    os.chdir(folder)
    os.environ |= {"OMP_NUM_THREADS": "1", "DA_COMPOSE_CACHE": str(folder / "cache")}
    seed_all()
    held = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES, resource.RLIM_INFINITY))
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
    while True:
        try:
            function, arguments = channel.recv()
        except EOFError:
            return
        raised, value = None, None
        try:
            value = function(*arguments)
        except Wrong as error:
            raised = Wrong(str(error))
        except Exception as error:
            raised = Wrong(shortened(f"{type(error).__name__}: {error}"))
        channel.send((raised, value))
