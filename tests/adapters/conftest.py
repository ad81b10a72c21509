"""Tiny frozen backbones with random weights and statistics, and images of a new domain."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters.loop import as_numbers
from adapters.parts import LEARNING_RATES, unlock
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import AdaptationTask, begun
from da_compose import Backbone, CompositionalNetwork, Domain, NetworkConfig
from da_compose.images import ImageSet, to_pixels
from da_compose.knowledge import collect_knowledge
from da_compose.starts import MEAN, make_start

TINY = NetworkConfig(
    num_layers=3,
    num_templates=2,
    channels=4,
    image_size=8,
    patch_size=4,
    hidden=6,
    embedding=5,
    num_classes=3,
)
# What of a domain's state moves, its first names, by what is trained
MOVING = {
    "mixture_weights": {"mixture"},
    "input_adapter": {"input_adapter"},
    "batch_norm": {"gamma", "beta"},
}

Images = NDArray[np.uint8]
MakeBackbone = Callable[..., Backbone]
TakeSteps = Callable[..., tuple[Domain, list[dict[str, float]]]]


def random_images(count: int, *, colour: bool = True, size: int = 8, seed: int = 0) -> Images:
    shape = (count, size, size, 3) if colour else (count, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def build_backbone(
    config: NetworkConfig = TINY,
    sources: Sequence[str] = ("left", "middle", "right"),
    seed: int = 0,
) -> Backbone:
    """A network whose sources have their own random xi and statistics, and unequal image counts."""
    network = CompositionalNetwork(config, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    data = {}
    for position, name in enumerate(sources):
        xi = None
        if config.signature is None:
            xi = torch.randn(config.num_layers, config.num_templates, generator=generator)
        domain = network.new_domain(name, xi)
        domain.set_statistics(
            0.3 * torch.randn(config.num_statistics, generator=generator),
            0.5 + torch.rand(config.num_statistics, generator=generator),
        )
        network.domains.add(domain)
        images = random_images(
            12 + 7 * position, colour=position % 2 == 0, size=config.image_size, seed=position
        )
        data[name] = ImageSet(images, np.arange(len(images)) % config.num_classes)
    names = tuple(f"class {number}" for number in range(config.num_classes))
    return Backbone(network, names, collect_knowledge(network, data))


def run_steps(
    backbone: Backbone,
    strategy: str,
    trains: str = "mixture_weights",
    *,
    images: Images | None = None,
    steps: int = 3,
    batch_size: int = 8,
    seed: int = 0,
    until: Callable[[Domain], bool] = lambda target: False,
) -> tuple[Domain, list[dict[str, float]]]:
    """A target after `steps` steps of a strategy, or fewer where `until` holds; its figures."""
    pixels = random_images(20, seed=9) if images is None else images
    target = make_start(backbone, MEAN, "target", pixels).target
    trained = unlock(backbone.network, target, trains)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATES[trains])
    task = AdaptationTask(backbone, target, trained, optimizer, batch_size, generator)
    running = begun(STRATEGIES[strategy](), task)
    history = []
    for _ in range(steps):
        chosen = torch.randint(len(pixels), (batch_size,), generator=generator).numpy()
        batch = to_pixels(pixels[chosen])
        history += as_numbers([running.step(batch)])
        if until(target):
            break
    return target, history


@pytest.fixture
def make_backbone() -> MakeBackbone:
    return build_backbone


@pytest.fixture
def take_steps() -> TakeSteps:
    return run_steps


@pytest.fixture
def make_pixels() -> Callable[..., Images]:
    return random_images


@pytest.fixture
def moving() -> Mapping[str, set[str]]:
    return MOVING


@pytest.fixture
def tiny_config() -> NetworkConfig:
    return TINY


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Compositional; shared by all tests, as nothing may change it."""
    return build_backbone()


@pytest.fixture(scope="session")
def unshared() -> Backbone:
    """The ordinary isometric network of the same shape, with no xi to learn."""
    return build_backbone(TINY.unshared())
