"""`predict/...`: a materialized domain, switching domains, and rows of many domains."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.speed.compare import REPEATS, Comparison, SpeedRow, alternate
from benchmarks.speed.setting import BATCH, Setting
from da_compose import (
    Backbone,
    CompositionalNetwork,
    Domain,
    Network,
    PretrainedNetwork,
    probabilities,
)
from da_compose.model.batched import predict_rows
from da_compose.model.mixture import LearnedMixture
from da_compose.model.norms import NormCursor
from da_compose.model.plain import Classifier, materialize
from da_compose.storage.export import export
from da_compose.storage.int8 import export_int8

ROWS, DOMAINS = 256, 64


@torch.no_grad()
def compare_prediction(setting: Setting) -> Iterator[SpeedRow]:
    """Batches of 128 images, unless a row says otherwise."""
    backbone = setting.backbone("compositional")
    network, ordinary = backbone.network, setting.backbone("unshared").network
    images = setting.target_images()
    name = setting.data.sources[0]
    plain = materialize(network, network.domains[name])
    plain_ordinary = materialize(ordinary, ordinary.domains[name])
    yield Comparison(
        name="predict/materialized", against="an ordinary network of the same shape", target=0.98
    ).of_calls(lambda: plain(images), lambda: plain_ordinary(images), work=len(images))
    yield Comparison(
        name="predict/mixed at each batch", against="the materialized network"
    ).of_calls(
        lambda: network(images, network.domains[name]), lambda: plain(images), work=len(images)
    )
    yield from of_exports(
        (backbone, network.domains[name]),
        (setting.backbone("unshared"), ordinary.domains[name]),
        setting.domains[name].train.images,
    )
    yield Comparison(
        name="predict/switch",
        against="a goal: another domain's weights mixed and folded within 1 ms",
        target=1.0,
    ).of_values(switch_time(network, network.domains[name]), 1.0, unit="ms")
    yield rows_of_many_domains(network, images)


def switch_time(network: Network, domain: Domain) -> float:
    """Milliseconds to have a domain's own weights; nothing of the backbone is copied."""

    def mix() -> object:
        if isinstance(network, CompositionalNetwork):
            return network.folded_blocks(domain, NormCursor(domain))
        assert isinstance(network, PretrainedNetwork)
        return network.values_of(domain)

    found, _ = alternate(mix, lambda: None, repeats=51)
    return 1000 * found


def rows_of_many_domains(
    network: Network, images: Tensor, suite: str = "predict", repeats: int = REPEATS
) -> SpeedRow:
    """256 rows of 64 domains in one call against 64 calls of 4 rows."""
    names = add_domains(network, DOMAINS)
    rows = images.repeat(ROWS // len(images) + 1, 1, 1, 1)[:ROWS]
    named = [names[row % DOMAINS] for row in range(ROWS)]
    places = {name: [row for row in range(ROWS) if named[row] == name] for name in names}

    def separately() -> None:
        for name, own in places.items():
            probabilities(network(rows[own], network.domains[name]))

    return Comparison(
        name=f"{suite}/{ROWS} rows of {DOMAINS} domains",
        against=f"{DOMAINS} batches of {ROWS // DOMAINS} rows",
        target=1.0,
    ).of_calls(
        lambda: predict_rows(network, rows, named), separately, work=ROWS, work_unit="rows",
        repeats=repeats,
    )  # fmt: skip


def add_domains(network: Network, count: int) -> list[str]:
    """So many new domains, each near the first one; returns their names."""
    generator = torch.Generator().manual_seed(0)
    source = next(iter(network.domains))
    assert isinstance(source.mixture, LearnedMixture)
    names = []
    for _ in range(count):
        noise = torch.randn(source.mixture.xi.shape, generator=generator)
        domain = network.new_domain(f"site-{len(network.domains)}", source.mixture.xi + 0.3 * noise)
        domain.set_statistics(source.mean, source.var)
        network.domains.add(domain.requires_grad_(False))
        names.append(domain.name)
    return names


def of_exports(
    ours: tuple[Backbone, Domain],
    ordinary: tuple[Backbone, Domain],
    images: NDArray[np.uint8],
    batch: int = BATCH,
    suite: str = "predict",
    repeats: int = REPEATS,
) -> Iterator[SpeedRow]:
    """A domain's files against the ordinary network's, PyTorch, and 8-bit integers.

    ours, ordinary: a backbone and its domain. images: uint8 (M, S, S, 3), for ranges of integers.
    """
    try:
        import onnxruntime
    except ImportError:
        click.echo("note: onnxruntime is left out; pip install 'da-compose[export]'")
        return
    backbone, domain = ours
    config = backbone.network.config
    classifier = Classifier(materialize(backbone.network, domain))
    pixels = torch.rand(batch, config.image_channels, config.image_size, config.image_size)

    def row(
        name: str,
        against: str,
        ours: Callable[[], object],
        other: Callable[[], object],
        target: float | None = None,
    ) -> SpeedRow:
        comparison = Comparison(name=f"{suite}/{name}", against=against, target=target)
        return comparison.of_calls(ours, other, work=batch, repeats=repeats)

    with tempfile.TemporaryDirectory() as folder:
        onnx, pt2, other_onnx, other_pt2, int8 = (
            Path(folder, name) for name in ("a.onnx", "a.pt2", "b.onnx", "b.pt2", "int8.onnx")
        )
        for (of, exported), paths in ((ours, (onnx, pt2)), (ordinary, (other_onnx, other_pt2))):
            for path in paths:
                export(of, exported, path)
        export_int8(backbone, domain, int8, images[:1000])
        run = _onnx(onnx, pixels)
        version = f"the export by onnxruntime {onnxruntime.__version__}"
        yield row("PyTorch", version, lambda: classifier(pixels), run)
        words = "that of the ordinary network"
        yield row(".onnx", words, run, _onnx(other_onnx, pixels), 0.98)
        programs = [torch.export.load(path).module() for path in (pt2, other_pt2)]
        first, second = (partial(program, pixels) for program in programs)
        yield row(".pt2", words, first, second, 0.98)
        yield row(".onnx of 8-bit integers", "that of floats", _onnx(int8, pixels), run)


def _onnx(path: Path, pixels: Tensor) -> Callable[[], object]:
    """A file's prediction of these pixels, on as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)
    return lambda: session.run(None, {"pixels": pixels.numpy()})
