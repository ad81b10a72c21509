"""What all speed comparisons share: backbones of recipe `paper`, real images, one batch size."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from adapters.parts import LEARNING_RATES, unlock
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import AdaptationTask, Strategy, begun
from adapters.strategies.contract import rate_of as multiple_of
from benchmarks.harness.benchmark import BenchmarkData
from benchmarks.harness.cells import Splits, prepare_backbone
from benchmarks.harness.digit_benchmark import DIGITS
from benchmarks.harness.plan import TRAINED, BackboneJob, Profile
from benchmarks.speed.plain import Batch, PlainLoop
from da_compose import Backbone, CompositionalNetwork, Domain
from da_compose.images import to_pixels, with_channels
from da_compose.starts import MEAN, make_start

BATCH = 128  # images of a domain, as `adapt` uses


@dataclass(frozen=True)
class Setting:
    """The backbones and images that are timed; `profile` says how long they were trained."""

    data: BenchmarkData
    profile: Profile
    runs: Path
    device: str = "cpu"

    @cached_property
    def domains(self) -> Mapping[str, Splits]:
        return self.data.domains

    @cached_property
    def target(self) -> Splits:
        return self.domains[self.data.target]

    def job(self, network: str) -> BackboneJob:
        (job,) = self.data.jobs(DIGITS, self.profile, ("paper",), (network,))
        return job

    def backbone(self, network: str) -> Backbone:
        """A fresh copy: what is timed may train it."""
        job = self.job(network)
        return prepare_backbone(job, self.domains, job.folder(self.runs), self.device)

    def batch(self, name: str, seed: int = 0) -> Batch:
        """Pixels (B, 1 or 3, S, S) and labels (B,) of one domain, on CPU."""
        train = self.domains[name].train
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(train), (BATCH,), generator=generator).numpy()
        pixels = with_channels(to_pixels(train.images[chosen]), 3)
        return pixels, torch.from_numpy(train.labels[chosen])

    def source_batches(self) -> list[Batch]:
        return [self.batch(name) for name in self.data.sources]

    def target_images(self) -> Tensor:
        return self.batch(self.data.target)[0]

    def our_strategy(self, network: str, name: str) -> Strategy:
        """A strategy on a fresh backbone, ready to step."""
        backbone = self.backbone(network)
        target = fresh_target(backbone, self.target)
        trains = TRAINED[network]
        learned = unlock(backbone.network, target, trains)
        optimizer = torch.optim.Adam(learned, lr=rate_of(name, trains))
        generator = torch.Generator().manual_seed(0)
        task = AdaptationTask(backbone, target, learned, optimizer, BATCH, generator)
        return begun(STRATEGIES[name](), task)

    def plain_loop(self, kind: str, strategy: str, *, whole: bool) -> PlainLoop:
        """The same by hand; `whole` trains every weight, else what ours trains at its rate."""
        backbone = self.backbone(kind)
        network = backbone.network
        assert isinstance(network, CompositionalNetwork)
        target = fresh_target(backbone, self.target)
        sources = [network.domains[name] for name in self.data.sources]
        if whole:
            parts = (network.templates, network.input_adapter, network.output_adapter)
            learned = [parameter for part in parts for parameter in part.parameters()]
            rate = 1e-3
        else:
            learned = unlock(backbone.network, target, TRAINED[kind])
            rate = rate_of(strategy, TRAINED[kind])
        return PlainLoop(network, sources, target, learned, rate=rate, whole=whole)


def rate_of(strategy: str, trains: str) -> float:
    """The learning rate that `adapt` uses by default."""
    return LEARNING_RATES[trains] * multiple_of(STRATEGIES[strategy]())


def fresh_target(backbone: Backbone, target: Splits) -> Domain:
    """The mean of the sources with the target's own statistics."""
    start = make_start(backbone, MEAN, "target", target.train.images[:1000])
    start.use_statistics(1.0)
    return start.target
