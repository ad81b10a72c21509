"""`pictures/...`: a pretrained network on pictures, against what others train of it, by hand.

EfficientNet-Lite0 of random weights on random pictures: they are as fast as real ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from adapters import adapt
from adapters.parts import DIRECTED, unlock
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import AdaptationTask, begun, warm_up_of
from adapters.strategies.contract import rate_of as multiple_of
from adapters.strategies.losses import information
from benchmarks.speed.compare import Comparison, SpeedRow, timed
from benchmarks.speed.peers import compare_peers
from benchmarks.speed.plain import Batch, PlainLoop
from benchmarks.speed.prediction import of_exports
from benchmarks.speed.setting import Setting
from da_compose import Backbone, PretrainedNetwork, pretrained_network
from da_compose.images import ImageSet, normalize
from da_compose.knowledge import collect_knowledge
from da_compose.model.domain import POOLED
from da_compose.model.plain import materialize
from da_compose.model.zoo import build_module

NAME = "timm:tf_efficientnet_lite0"
SOURCES = ("source-1", "source-2", "source-3")
LOOPS = ("adversarial", "moment_matching", "classifier_discrepancy")
CLASSES = 7
EPOCHS = 15  # of SHOT, as published


@dataclass(frozen=True)
class Pictures:
    """What is timed: a network, pictures a domain, pictures a batch of each domain."""

    name: str = NAME
    size: int = 128  # pixels a side
    count: int = 1000
    batch: int = DIRECTED.batch_size
    steps: int | None = None  # of the whole adaptation; None: as by default
    repeats: int = 5

    def images(self, seed: int) -> np.ndarray:
        shape = self.count, self.size, self.size, 3
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    def pixels(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.batch, 3, self.size, self.size, generator=generator)

    def network(self, templates: int) -> PretrainedNetwork:
        """With random directions, and domains of the sources and `pooled`."""
        made = pretrained_network(
            self.name, num_classes=CLASSES, image_size=self.size, weights="random"
        )
        width, generator = made.templates.directions.shape[1], torch.Generator().manual_seed(0)
        made = made.with_directions(0.1 * torch.randn(templates, width, generator=generator))
        for name in (*SOURCES, POOLED):
            made.domains.add(made.new_domain(name))
        return made

    @cached_property
    def backbone(self) -> Backbone:
        labels = np.arange(self.count) % CLASSES
        sources = {
            name: ImageSet(self.images(seed), labels) for seed, name in enumerate(SOURCES, 1)
        }
        network = self.network(4)
        names = tuple(f"class-{number}" for number in range(CLASSES))
        return Backbone(network, names, collect_knowledge(network, sources, max_images=self.batch))

    def our_step(self, strategy: str) -> Callable[[], object]:
        """On the coefficients of a new domain, past the first steps, which differ."""
        backbone, pixels = self.backbone, self.pixels(0)
        target = backbone.network.new_domain("target")
        learned = unlock(backbone.network, target, "mixture_weights")
        method = STRATEGIES[strategy]()
        rate = DIRECTED.rates["mixture_weights"] * multiple_of(method)
        optimizer = torch.optim.Adam(learned, lr=rate)
        generator = torch.Generator().manual_seed(0)
        task = AdaptationTask(backbone, target, learned, optimizer, self.batch, generator)
        made = begun(method, task)
        for _ in range(warm_up_of(made) + 1):
            made.step(pixels)
        return lambda: made.step(pixels)

    def published_loop(self) -> PlainLoop:
        """All sources and all weights of the ordinary network, under batch statistics."""
        network = self.network(0)
        domains = [network.domains[name] for name in SOURCES]
        learned = [p for p in network.shared_parameters() if p.ndim > 0]
        own = {id(parameter) for parameter in network.heads.parameters()}
        learned = [parameter for parameter in learned if id(parameter) not in own]
        target = network.new_domain("target")
        return PlainLoop(network, domains, target, learned, rate=1e-4, whole=True)

    def source_batches(self) -> Sequence[Batch]:
        labels = torch.arange(self.batch) % CLASSES
        return [(self.pixels(seed), labels) for seed in range(1, len(SOURCES) + 1)]


def compare_pictures(setting: Setting) -> Iterator[SpeedRow]:
    """Of digits' setting nothing is used: pictures have one of their own."""
    yield from compare_on(Pictures())


def compare_on(pictures: Pictures) -> Iterator[SpeedRow]:
    """Steps, a whole adaptation, predictions."""
    loop, batches, pixels = pictures.published_loop(), pictures.source_batches(), pictures.pixels(0)
    for strategy in LOOPS:
        step = getattr(loop, strategy)
        yield Comparison(
            name=f"pictures/step/{strategy}",
            against=f"as published, by hand: {len(SOURCES)} sources, all weights train",
            target=5.0,
        ).of_calls(
            pictures.our_step(strategy), lambda: step(batches, pixels),  # noqa: B023
            repeats=pictures.repeats,
        )  # fmt: skip
    ours, shots = pictures.our_step("information_maximization"), shot_step(pictures)
    peers: Mapping[str, tuple[Callable[[], object], str, float]] = {
        "TENT": (tent_step(pictures), "gamma, beta of all batch norms train", 1.5),
        "SHOT": (shots, "all weights but the classifier's train", 2.0),
    }
    for name, (peer, words, least) in peers.items():
        yield Comparison(
            name=f"pictures/step/information_maximization/{name}",
            against=f"{name} as published, by hand: {words}",
            target=least,
        ).of_calls(ours, peer, repeats=pictures.repeats)
    ordinary = pictures.network(0)
    yield from compare_peers(
        pictures.our_step,
        ordinary,
        ordinary.domains[SOURCES[0]],
        batches[0],
        pixels,
        suite="pictures/step",
        repeats=pictures.repeats,
    )
    yield whole_adaptation(pictures, shots)
    yield prediction(pictures)
    name = SOURCES[0]
    yield from of_exports(
        (pictures.backbone, pictures.backbone.network.domains[name]),
        (Backbone(ordinary, pictures.backbone.class_names, {}), ordinary.domains[name]),
        pictures.images(0),
        pictures.batch,
        "pictures/predict",
    )


def _module(pictures: Pictures) -> nn.Module:
    module = build_module(pictures.name, pictures.size)
    cast(Any, module).reset_classifier(CLASSES)
    return module.to(memory_format=torch.channels_last).train()


def tent_step(pictures: Pictures) -> Callable[[], object]:
    """Wang et al. 2021: entropy under batch statistics, gamma and beta by Adam."""
    module = _module(pictures).requires_grad_(False)
    learned = []
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats, part.running_mean, part.running_var = False, None, None
            learned += [part.weight.requires_grad_(True), part.bias.requires_grad_(True)]
    optimizer, pixels = torch.optim.Adam(learned, lr=1e-3), _inputs(pictures)

    def step() -> None:
        logits = module(pixels)
        loss = -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def shot_step(pictures: Pictures) -> Callable[[], object]:
    """Liang et al. 2020: information, all weights before the classifier by SGD."""
    module = _module(pictures)
    module.get_submodule("classifier").requires_grad_(False)
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-3, momentum=0.9, nesterov=True)
    pixels = _inputs(pictures)

    def step() -> None:
        loss = -information(module(pixels).softmax(dim=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _inputs(pictures: Pictures) -> Tensor:
    network = pictures.backbone.network
    return normalize(pictures.pixels(0), 3, *network.normalization())


def whole_adaptation(pictures: Pictures, shots: Callable[[], object]) -> SpeedRow:
    """From pictures to the outcome by default, once: the start; of SHOT its steps alone."""
    images = pictures.images(0)
    took = timed(lambda: adapt(pictures.backbone, images, steps=pictures.steps), "cpu")
    steps = EPOCHS * -(-len(images) // pictures.batch)
    return Comparison(
        name=f"pictures/adapt/{len(images):,} pictures",
        against=f"SHOT as published, by hand: {EPOCHS} epochs are {steps} steps",
        target=2.0,
    ).of_values(took, steps * timed(shots, "cpu"), unit="s")


@torch.no_grad()
def prediction(pictures: Pictures) -> SpeedRow:
    """Batches of pixels."""
    network, module = pictures.backbone.network, _module(pictures).eval()
    plain = materialize(network, network.domains[SOURCES[0]])
    pixels, inputs = pictures.pixels(0), _inputs(pictures)
    return Comparison(
        name="pictures/predict/materialized", against="the ordinary network in timm", target=0.98
    ).of_calls(
        lambda: plain(pixels), lambda: module(inputs), work=len(pixels), repeats=pictures.repeats
    )
