"""`predict/...`: a materialized domain, switching domains, and rows of many domains."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import torch
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
    yield from against_onnx(backbone, network.domains[name])
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


def against_onnx(
    backbone: Backbone, domain: Domain, batch: int = BATCH, suite: str = "predict"
) -> Iterator[SpeedRow]:
    """The same classifier by PyTorch and, exported, by onnxruntime, as many threads each."""
    try:
        import onnxruntime
    except ImportError:
        click.echo("note: onnxruntime is left out; pip install 'da-compose[export]'")
        return
    config = backbone.network.config
    classifier = Classifier(materialize(backbone.network, domain))
    pixels = torch.rand(batch, config.image_channels, config.image_size, config.image_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "domain.onnx"
        export(backbone, domain, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options)
        yield Comparison(
            name=f"{suite}/PyTorch", against=f"the export by onnxruntime {onnxruntime.__version__}"
        ).of_calls(
            lambda: classifier(pixels),
            lambda: session.run(None, {"pixels": pixels.numpy()}),
            work=len(pixels),
        )
