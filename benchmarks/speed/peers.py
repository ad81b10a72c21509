"""The same objectives built with pytorch-adapt and skada, on their one-source task.

Both are used as their documentation shows: the whole network trains, with batch statistics.
Neither is a dependency: `pip install --no-deps pytorch-adapt==0.0.83 skada==0.6.0` and what they
import (see `MISSING`).
"""

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import click
import torch
from torch import Tensor, nn

from adapters.strategies.adversarial import build_discriminator
from adapters.strategies.losses import moment_distance, moments
from benchmarks.speed.compare import REPEATS, Comparison, SpeedRow
from benchmarks.speed.plain import Batch
from da_compose import Domain, Network

MISSING = (
    "pip install --no-deps pytorch-adapt==0.0.83 pytorch-metric-learning torchmetrics "
    "lightning-utilities tqdm skada==0.6.0 POT skorch tabulate"
)
RATE = 1e-3
LEAST = 1.5  # times as fast as a peer
Step = Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """An objective as a peer trains it: a step on a source's batch and the target's images.

    What trains is a copy: `network`, used as `domain`.
    """

    step: Callable[[Batch, Tensor], object]
    network: Network
    domain: Domain


class Encoder(nn.Module):
    """One domain of a network as an ordinary module: images (B, 3, S, S) -> features."""

    def __init__(self, network: Network, domain: Domain, block: bool) -> None:
        super().__init__()
        self.network, self.domain, self.block = network, domain, block

    def forward(self, images: Tensor) -> Tensor:
        block, embedding = self.network.features(images, self.domain)
        return block if self.block else embedding


class Heads(nn.Module):
    """Embedding (B, F) -> logits of both classifiers, or of the first."""

    def __init__(self, network: Network, both: bool) -> None:
        super().__init__()
        self.heads, self.both = network.heads, both

    def forward(self, embedding: Tensor) -> Tensor | list[Tensor]:
        logits = [head(embedding) for head in self.heads]
        return logits if self.both else logits[0]


def moment_loss(source: Tensor, target: Tensor) -> Tensor:
    """M3SDA's distance of moments of one source and the target, with gradients of both."""
    return 0.5 * moment_distance(moments(target), [moments(source)])


def of_pytorch_adapt(network: Network, domain: Domain, rate: float) -> dict[str, Peer]:
    """Each objective by pytorch-adapt's hooks, on batches of equal size."""
    from pytorch_adapt.hooks import ADDAHook, AlignerPlusCHook, MCDHook  # pyright: ignore[reportMissingImports]
    from pytorch_adapt.layers import sufficient_accuracy  # pyright: ignore[reportMissingImports]

    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=rate)

    def peer(hook: Callable[..., object], encoder: Encoder, **parts: nn.Module) -> Peer:
        def step(source: Batch, target: Tensor) -> object:
            images, labels = source
            batch = {
                "src_imgs": images,
                "src_labels": labels,
                "src_domain": torch.zeros(len(images)),
                "target_imgs": target,
                "target_domain": torch.ones(len(target)),
            }
            return hook(parts | batch)

        return Peer(step, encoder.network, encoder.domain)

    def models(block: bool, both: bool) -> tuple[Encoder, Heads]:
        own = deepcopy(network).requires_grad_(True)
        return Encoder(own, deepcopy(domain).use_batch_statistics(), block), Heads(own, both)

    encoder, heads = models(block=True, both=False)
    tuned = deepcopy(encoder)
    discriminator = nn.Sequential(
        build_discriminator(network.config.channels, torch.Generator()), nn.Flatten(0)
    )
    # torchmetrics 1 asks for the kind of task, which pytorch-adapt 0.0.83 does not name
    sufficient_accuracy.accuracy = partial(sufficient_accuracy.accuracy, task="binary")
    adda = ADDAHook(threshold=0.0, d_opts=[optimizer(discriminator)], g_opts=[optimizer(tuned)])
    found = {"adversarial": peer(adda, tuned, G=encoder, C=heads, T=tuned, D=discriminator)}

    encoder, heads = models(block=False, both=False)
    aligner = AlignerPlusCHook(
        opts=[optimizer(encoder), optimizer(heads)], loss_fn=moment_loss, softmax=False
    )
    found["moment_matching"] = peer(aligner, encoder, G=encoder, C=heads)

    encoder, heads = models(block=False, both=True)
    mcd = MCDHook(g_opts=[optimizer(encoder)], c_opts=[optimizer(heads)], repeat=2)
    found["classifier_discrepancy"] = peer(mcd, encoder, G=encoder, C=heads)
    return found


def of_skada(network: Network, domain: Domain, rate: float) -> dict[str, Peer]:
    """Each objective that skada has: DANN for ADDA, moments as an own criterion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skada.deep import DANNLoss  # pyright: ignore[reportMissingImports]
        from skada.deep.base import (  # pyright: ignore[reportMissingImports]
            BaseDALoss,
            DomainAwareCriterion,
            DomainAwareModule,
            DomainAwareNet,
        )

    class MomentLoss(BaseDALoss):
        def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, *, features_s: Tensor, features_t: Tensor, **_: object
        ) -> Tensor:
            return moment_loss(features_s, features_t)

    class Classifier(nn.Module):
        """Images -> probabilities; skada finds the features by the layer's name."""

        def __init__(self, block: bool) -> None:
            super().__init__()
            own = deepcopy(network).requires_grad_(True)
            self.encoder = Encoder(own, deepcopy(domain).use_batch_statistics(), block)
            self.heads, self.block, self.network = Heads(own, both=False), block, own

        def forward(self, images: Tensor, **_: object) -> Tensor:
            features = self.encoder(images)
            if self.block:
                features = self.network.embed_block_features(features, self.encoder.domain)
            logits = self.heads(features)
            assert isinstance(logits, Tensor)
            return logits

    def peer(block: bool, loss: nn.Module, judge: nn.Module | None) -> Peer:
        classifier = Classifier(block)
        net = DomainAwareNet(
            module=DomainAwareModule(classifier, "encoder", judge),
            criterion=DomainAwareCriterion(nn.CrossEntropyLoss(), loss),
            optimizer=torch.optim.Adam,
            lr=rate,
            train_split=None,
            verbose=0,
        )
        net.initialize()

        def step(source: Batch, target: Tensor) -> object:
            images, labels = source
            places = torch.cat([torch.ones(len(images)), -torch.ones(len(target))])
            known = torch.cat([labels, torch.full((len(target),), -1)])
            pixels = torch.cat([images, target])
            return net.train_step(({"X": pixels, "sample_domain": places}, known))

        return Peer(step, classifier.network, classifier.encoder.domain)

    with torch.no_grad():
        pixels = torch.zeros(1, 3, *[network.config.image_size] * 2, device=network.device)
        shape = network.block_features(pixels, domain).shape[1:]
    judge = nn.Sequential(  # skada flattens features
        nn.Unflatten(1, shape),
        build_discriminator(shape[0], torch.Generator()),
        nn.Flatten(0),
        nn.Sigmoid(),
    )
    return {
        "adversarial": peer(True, DANNLoss(), judge),
        "moment_matching": peer(False, MomentLoss(), None),
    }


PEERS = {"pytorch-adapt": of_pytorch_adapt, "skada": of_skada}


def peers_of(
    network: Network, domain: Domain, rate: float = RATE
) -> Iterator[tuple[str, str, dict[str, Peer]]]:
    """Name, version and objectives of each peer; one that is not installed is left out, and said.

    Adam's learning rate is `rate`.
    """
    for name, make in PEERS.items():
        try:
            yield name, version(name), make(network, domain, rate)
        except (PackageNotFoundError, ImportError) as error:
            click.echo(f"note: {name} is left out ({error}); {MISSING}")


def compare_peers(
    our_step: Callable[[str], Step],
    network: Network,
    domain: Domain,
    source: Batch,
    target: Tensor,
    *,
    suite: str,
    repeats: int = REPEATS,
) -> Iterator[SpeedRow]:
    """A step of ours, by strategy, against each peer's on one source; all of `network` trains."""
    for name, found, objectives in peers_of(network, domain):
        for strategy, peer in objectives.items():
            row = Comparison(
                name=f"{suite}/{strategy}/{name}",
                against=f"{name} {found}, one source, the whole ordinary network trains",
                target=LEAST,
            )
            yield row.of_calls(
                our_step(strategy), lambda: peer.step(source, target),  # noqa: B023
                repeats=repeats, versions={name: found},
            )  # fmt: skip
