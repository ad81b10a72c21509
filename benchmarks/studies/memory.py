"""Peak memory of `adapt` and `predict` by pictures: `python -m benchmarks.studies.memory`.

What counts is anonymous memory, which a machine cannot take back: pages of files, such as mapped
pictures, it can. Each command runs in a process of its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.harness import measure
from benchmarks.harness.folders import ROWS, results_of, runs_of
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.reports.tables import GUIDE
from da_compose import PRESETS, Backbone, CompositionalNetwork
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.storage.files import replacing

NETWORK = replace(PRESETS["small"], image_size=64, patch_size=8)
SIDES = (96, 128)  # height and width of the pictures
DIFFERENT = 50  # pictures, written again and again under other names
ADAPT_STEPS = 5
FULL = 1_000  # pictures from which on all batches are full: growth is counted from here
SAMPLED_EVERY = 0.005  # seconds
CLI = (sys.executable, "-m", "da_compose")


def measure_memory(counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A result row of each command for each number of pictures."""
    about = {
        "network": asdict(NETWORK),
        "adapt_steps": ADAPT_STEPS,
        "seed": 0,
        "commit": measure.commit(),
        "device": measure.device_name(torch.device("cpu")),
        "versions": measure.versions(),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        backbone, adapter = folder / "backbone.safetensors", folder / "adapter.safetensors"
        random_backbone().save(backbone)
        for count in counts:
            pictures = folder / str(count)
            write_pictures(pictures, count)
            shared = ("--backbone", backbone)
            for command, arguments in {
                "adapt": (*shared, "--images", pictures, "--out", adapter, "--steps", ADAPT_STEPS),
                "predict": (*shared, "--adapter", adapter, pictures),
            }.items():
                started = time.perf_counter()
                peak = peak_anonymous((*CLI, command, *map(str, arguments)))
                seconds = round(time.perf_counter() - started, 1)
                row = {"command": command, "pictures": count, "peak_bytes": peak}
                yield row | {"seconds": seconds} | about


def random_backbone() -> Backbone:
    """A backbone that knows one source, and nothing useful."""
    network = CompositionalNetwork(NETWORK)
    network.domains.add(network.new_domain("source"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    sources = {"source": ImageSet(pixels, np.arange(40) % NETWORK.num_classes)}
    names = tuple(map(str, range(NETWORK.num_classes)))
    return Backbone(network, names, collect_knowledge(network, sources))


def write_pictures(folder: Path, count: int) -> None:
    """Write so many JPEG files of random pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    files = [folder / f"{number:06}.jpg" for number in range(count)]
    for file in files[:DIFFERENT]:
        Image.fromarray(random.integers(0, 256, (*SIDES, 3), dtype=np.uint8)).save(file)
    contents = [file.read_bytes() for file in files[:DIFFERENT]]
    for number, file in enumerate(files[DIFFERENT:]):
        file.write_bytes(contents[number % DIFFERENT])


def peak_anonymous(command: Sequence[str]) -> int:
    """Run a command to its end: the most anonymous memory that it was seen with, in bytes."""
    peak = 0
    with subprocess.Popen(
        command,
        cwd=measure.ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    ) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            with suppress(OSError, IndexError):  # it has just ended
                held = status.read_text().split("RssAnon:")[1].split()[0]
                peak = max(peak, 1024 * int(held))
            time.sleep(SAMPLED_EVERY)
    if process.returncode or not peak:
        raise OSError(
            f"`{' '.join(command)}` ended with {process.returncode}, after {peak:,} bytes; it must "
            "succeed, on Linux"
        )
    return peak


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """The latest row of each command and number of pictures, with growth since `FULL` of them."""
    latest = {(row["command"], row["pictures"]): row for row in rows}
    header = ["Command", "Pictures", "Peak MB", f"Bytes a picture beyond {FULL:,}", "Seconds"]
    lines = [header, ["---", *["--:"] * (len(header) - 1)]]
    for (command, count), row in sorted(latest.items(), key=lambda item: item[0]):
        growth, full = "-", latest.get((command, FULL))
        if full and count > FULL:
            growth = f"{(row['peak_bytes'] - full['peak_bytes']) / (count - FULL):,.0f}"
        megabytes = f"{row['peak_bytes'] / 1e6:,.0f}"
        lines.append([command, f"{count:,}", megabytes, growth, f"{row['seconds']:g}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def caption(row: Mapping[str, Any]) -> str:
    """What was measured, and where."""
    versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    picture = 3 * row["network"]["image_size"] ** 2
    return (
        f"Peak anonymous memory of a process on JPEG pictures of {SIDES[1]} × {SIDES[0]} pixels "
        f"({picture:,} bytes in the network); {row['adapt_steps']} steps.\n"
        f"One thread; {row['device']}; {versions}.\n"
        f"commit {row['commit']}. {GUIDE}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A caption and a line for each command and number of pictures."""
    return f"{caption(rows[-1])}\n\n{markdown(rows)}"


@click.command()
@click.option("--pictures", "counts", type=click.IntRange(min=1), multiple=True,
              default=(100, FULL, 5_000, 10_000))  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=results_of(runs_of("memory")))
def main(counts: tuple[int, ...], results: Path) -> None:
    """Measure, add rows to results.jsonl, and make table.md of all of them."""
    file = results / ROWS
    for row in measure_memory(counts):
        append_line(file, row)
        click.echo(f"{row['command']}, {row['pictures']:,}: {row['peak_bytes'] / 1e6:,.0f} MB")
    with replacing(results / "table.md") as temporary:
        temporary.write_text(table(read_lines(file)), encoding="utf-8")
    click.echo(f"wrote {results / 'table.md'}")


if __name__ == "__main__":
    main()
