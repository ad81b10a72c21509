"""What a measurement records besides its result: time, memory, machine, versions, commit."""

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.allocator import give_back_freed_memory

ROOT = Path(__file__).resolve().parents[2]
NO_RESULTS = ":!benchmarks/results"
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "da-compose")


@dataclass
class Measurement:
    """Wall time in seconds and peak resident memory in MB of a `measured` block."""

    seconds: float = 0.0
    peak_memory_mb: float = 0.0

    def after(self, other: "Measurement") -> "Measurement":
        """Of both blocks, one after another."""
        peak = max(self.peak_memory_mb, other.peak_memory_mb)
        return Measurement(self.seconds + other.seconds, peak)


@contextmanager
def measured() -> Iterator[Measurement]:
    """Measure the block; where Linux allows it, the memory peak is the block's own."""
    give_back_freed_memory()
    with suppress(OSError):  # the peak is then that of the whole process, an upper bound
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the present
    found, started = Measurement(), time.perf_counter()
    yield found
    found.seconds = time.perf_counter() - started
    found.peak_memory_mb = peak_memory_mb()


def peak_memory_mb() -> float:
    """Peak resident memory of this process since it was last reset."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def commit() -> str:
    """The commit the code stands at, `+` where tracked files differ from it; `unknown` if none.

    Results are not code: a benchmark adds to them while it runs.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")) != ROOT:
            return "unknown"  # installed inside another repository
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", NO_RESULTS)
        return head + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    """The processor or GPU, in words."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"cpu: {line.split(':', 1)[1].strip()}"
    except OSError:
        pass
    return f"cpu: {platform.processor() or platform.machine()}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
