"""Tiny networks (3 layers, 2 templates, 8x8 images) and tiny image sets."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from da_compose import CompositionalNetwork, NetworkConfig
from da_compose.images import ImageSet
from da_compose.model.mixture import MixtureWeights
from tests.da_compose.processes import PROCESSES, Together, call_together


class MakeNetwork(Protocol):
    def __call__(
        self, domains: Sequence[str] = ("a", "b"), seed: int = 0, **changes: Any
    ) -> CompositionalNetwork: ...


class MakeImages(Protocol):
    def __call__(
        self, count: int, seed: int = 0, size: int = 8, colour: bool = False
    ) -> ImageSet: ...


@pytest.fixture(scope="session")
def make_config() -> Callable[..., NetworkConfig]:
    def make(**changes: Any) -> NetworkConfig:
        shape: dict[str, Any] = {
            "num_layers": 3,
            "num_templates": 2,
            "channels": 4,
            "expansion": 2,
            "squeeze": 2,
            "patch_size": 4,
            "image_size": 8,
            "hidden": 6,
            "embedding": 5,
            "num_classes": 3,
        }
        return NetworkConfig(**(shape | changes))

    return make


@pytest.fixture(scope="session")
def make_network(make_config: Callable[..., NetworkConfig]) -> MakeNetwork:
    """A network in evaluation with domains whose every parameter and statistic is random."""

    def make(
        domains: Sequence[str] = ("a", "b"), seed: int = 0, **changes: Any
    ) -> CompositionalNetwork:
        network = CompositionalNetwork(make_config(**changes), seed=seed)
        for name in domains:
            network.domains.add(network.new_domain(name))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
            for domain in network.domains:
                domain.mean += 0.3 * torch.randn(domain.mean.shape, generator=generator)
                domain.var += torch.rand(domain.var.shape, generator=generator)
                if isinstance(domain.mixture, MixtureWeights):
                    xi = domain.mixture.xi
                    xi.add_(torch.randn(xi.shape, generator=generator))
        return network.eval()

    return make


@pytest.fixture(scope="session")
def make_images() -> MakeImages:
    """Images of three classes told apart by brightness; classes are 0, 1, 2, 0, 1, 2, ..."""

    def make(count: int, seed: int = 0, size: int = 8, colour: bool = False) -> ImageSet:
        generator = np.random.default_rng(seed)
        labels = np.arange(count, dtype=np.int64) % 3
        shape = (count, size, size, 3) if colour else (count, size, size)
        noise = generator.integers(0, 60, shape)
        bright = 90 * labels.reshape(-1, *[1] * (len(shape) - 1))
        return ImageSet((noise + bright).astype(np.uint8), labels)

    return make


@pytest.fixture(scope="session")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes of the server that the campaign uses: torch is imported there once."""
    from benchmarks.reliability.children import CONTEXT

    with ProcessPoolExecutor(PROCESSES, mp_context=CONTEXT) as pool:
        yield pool


@pytest.fixture
def together(pool: ProcessPoolExecutor, tmp_path: Path) -> Together:
    """Calls a function in two processes of one group: what it returned in each."""
    return partial(call_together, pool, tmp_path)
