"""`growth/...`: a pretrained network as pictures and domains grow in number.

EfficientNet-Lite0 of random weights; files of smooth random pictures, twice as large as a camera's
thumbnails, so that they decode like photographs.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from adapters import adapt
from benchmarks.harness import measure
from benchmarks.reports.plots import DPI, save_figure
from benchmarks.speed.compare import Comparison, SpeedRow, timed
from benchmarks.speed.pictures import SOURCES, Pictures
from benchmarks.speed.prediction import rows_of_many_domains, switch_time
from benchmarks.speed.scale import many_domains
from benchmarks.speed.setting import Setting
from da_compose.reading import read_images

COUNTS = (10, 100, 1_000, 10_000)  # pictures
DOMAINS = (1, 10, 100, 1_000)
DIFFERENT = 100  # files that differ; more are copies
FILE_SIZE = 512, 384  # pixels
SWITCH_MS = 5.0  # a goal
READ, ADAPT, MEMORY = "read", "adapt", "memory to adapt"


def compare_growth(setting: Setting) -> Iterator[SpeedRow]:
    """Of digits' setting nothing is used."""
    yield from growth_of(Pictures(), COUNTS, DOMAINS)


def growth_of(
    pictures: Pictures, counts: Sequence[int], domains: Sequence[int]
) -> Iterator[SpeedRow]:
    """Reading files, adapting to them, and serving many domains."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), max(counts))
        yield decoding(paths[: counts[-2]], pictures.size)
        yield from by_pictures(pictures, paths, counts)
    network = pictures.network(4)
    ordinary = sum(4 * parameter.numel() for parameter in network.shared_parameters())
    with torch.no_grad():
        yield Comparison(
            name="growth/switch", against=f"a goal: {SWITCH_MS:g} ms", target=1.0
        ).of_values(switch_time(network, network.domains[SOURCES[0]]), SWITCH_MS, unit="ms")
        yield rows_of_many_domains(
            pictures.network(4), pictures.pixels(0), "growth", pictures.repeats
        )
        yield from many_domains(network, ordinary, "growth", domains)


def write_files(folder: Path, count: int) -> list[Path]:
    """So many JPEG files, in one folder."""
    generator, files = np.random.default_rng(0), []
    for _ in range(min(count, DIFFERENT)):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(FILE_SIZE, Image.Resampling.BICUBIC)
        path = folder / f"{len(files):05}.jpg"
        smooth.save(path, quality=90)
        files.append(path)
    for number in range(len(files), count):
        path = folder / f"{number:05}.jpg"
        path.write_bytes(files[number % DIFFERENT].read_bytes())
        files.append(path)
    return files


def decoding(paths: Sequence[Path], size: int) -> SpeedRow:
    """Files to arrays of the network's size."""

    def whole() -> None:
        for path in paths:
            with Image.open(path) as picture:
                np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))

    return Comparison(
        name="growth/decode", against="each file decoded whole by Pillow, then made small"
    ).of_calls(lambda: read_images([*paths], size), whole, work=len(paths), repeats=3)


def by_pictures(
    pictures: Pictures, paths: Sequence[Path], counts: Sequence[int]
) -> Iterator[SpeedRow]:
    """Seconds for so many pictures, beside growth in proportion; memory, beside that of few."""
    first: list[float] | None = None
    for count in counts:
        read = timed(lambda: read_images([*paths[:count]], pictures.size), "cpu")  # noqa: B023
        images = read_images([*paths[:count]], pictures.size)
        with measure.measured() as spent:
            adapt(pictures.backbone, images, steps=pictures.steps)
        found = [read, spent.seconds, spent.peak_memory_mb]
        first = first or found
        for what, value, then, unit in zip(
            (READ, ADAPT, MEMORY), found, first, ("s", "s", "MB"), strict=True
        ):
            linear = then if what == MEMORY else then * count / counts[0]
            words = f"of {counts[0]}" if what == MEMORY else f"as many times {counts[0]}"
            yield Comparison(name=f"growth/{what} {count:,} pictures", against=words).of_values(
                value, linear, unit=unit
            )


def exponent(counts: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a line through the logarithms: 1 is growth in proportion, 0 is none."""
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])


def plot_growth(rows: Sequence[SpeedRow], path: Path) -> None:
    """Time and memory against pictures, with their exponents; nothing where there is none."""
    found = {what: _series(rows, what) for what in (READ, ADAPT, MEMORY)}
    if not all(len(counts) > 1 for counts, _ in found.values()):
        return
    figure = Figure(figsize=(8, 3.2), dpi=DPI, layout="constrained")
    times, memory = figure.subplots(1, 2)
    for what, (counts, values) in found.items():
        label = f"{what} (exponent {exponent(counts, values):.2f})"
        (memory if what == MEMORY else times).plot(counts, values, "o-", label=label)
    for panel, unit in ((times, "Seconds"), (memory, "Peak memory (MB)")):
        panel.set(xscale="log", yscale="log", xlabel="Pictures", ylabel=unit)
        panel.grid(color="0.9")
        panel.legend(fontsize=8)
    save_figure(figure, path, "EfficientNet-Lite0, pictures of 128 pixels, one thread")


def _series(rows: Sequence[SpeedRow], what: str) -> tuple[list[float], list[float]]:
    start = f"growth/{what} "
    own = [row for row in rows if row.name.startswith(start) and row.name.endswith(" pictures")]
    counts = [float(row.name.removeprefix(start).split()[0].replace(",", "")) for row in own]
    return counts, [row.ours for row in own]
