"""The same objectives built with pytorch-adapt and skada, on their one-source task.

Both are used as their documentation shows: the whole network trains, with batch statistics.
Neither is a dependency: `pip install --no-deps pytorch-adapt==0.0.83 skada==0.6.0` and what they
import (see `MISSING`).
"""

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
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


def pytorch_adapt_steps(
    network: Network, domain: Domain, source: Batch, target: Tensor
) -> dict[str, Step]:
    """One step of each objective by pytorch-adapt's hooks, on batches of equal size."""
    from pytorch_adapt.hooks import ADDAHook, AlignerPlusCHook, MCDHook  # pyright: ignore[reportMissingImports]
    from pytorch_adapt.layers import sufficient_accuracy  # pyright: ignore[reportMissingImports]

    images, labels = source
    batch = {
        "src_imgs": images,
        "src_labels": labels,
        "src_domain": torch.zeros(len(images)),
        "target_imgs": target,
        "target_domain": torch.ones(len(target)),
    }

    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=RATE)

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
    of_adda = {"G": encoder, "C": heads, "T": tuned, "D": discriminator, **batch}

    encoder, heads = models(block=False, both=False)
    aligner = AlignerPlusCHook(
        opts=[optimizer(encoder), optimizer(heads)], loss_fn=moment_loss, softmax=False
    )
    of_aligner = {"G": encoder, "C": heads, **batch}

    encoder, heads = models(block=False, both=True)
    mcd = MCDHook(g_opts=[optimizer(encoder)], c_opts=[optimizer(heads)], repeat=2)
    of_mcd = {"G": encoder, "C": heads, **batch}
    return {
        "adversarial": lambda: adda(of_adda),
        "moment_matching": lambda: aligner(of_aligner),
        "classifier_discrepancy": lambda: mcd(of_mcd),
    }


def skada_steps(network: Network, domain: Domain, source: Batch, target: Tensor) -> dict[str, Step]:
    """One step of each objective that skada has: DANN for ADDA, moments as an own criterion."""
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

    images, labels = source
    places = torch.cat([torch.ones(len(images)), -torch.ones(len(target))])
    known = torch.cat([labels, torch.full((len(target),), -1)])
    batch = ({"X": torch.cat([images, target]), "sample_domain": places}, known)

    def step(block: bool, loss: nn.Module, judge: nn.Module | None) -> Step:
        net = DomainAwareNet(
            module=DomainAwareModule(Classifier(block), "encoder", judge),
            criterion=DomainAwareCriterion(nn.CrossEntropyLoss(), loss),
            optimizer=torch.optim.Adam,
            lr=RATE,
            train_split=None,
            verbose=0,
        )
        net.initialize()
        return lambda: net.train_step(batch)

    with torch.no_grad():
        shape = network.block_features(images[:1], domain).shape[1:]
    judge = nn.Sequential(  # skada flattens features
        nn.Unflatten(1, shape),
        build_discriminator(shape[0], torch.Generator()),
        nn.Flatten(0),
        nn.Sigmoid(),
    )
    return {
        "adversarial": step(True, DANNLoss(), judge),
        "moment_matching": step(False, MomentLoss(), None),
    }


PEERS = {"pytorch-adapt": pytorch_adapt_steps, "skada": skada_steps}


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
    """A step of ours, by strategy, against each peer's on one source; all of `network` trains.

    A peer that is not installed is left out, and said.
    """
    for peer, make in PEERS.items():
        try:
            found = version(peer)
            steps = make(network, domain, source, target)
        except (PackageNotFoundError, ImportError) as error:
            click.echo(f"note: {peer} is left out ({error}); {MISSING}")
            continue
        for strategy, step in steps.items():
            row = Comparison(
                name=f"{suite}/{strategy}/{peer}",
                against=f"{peer} {found}, one source, the whole ordinary network trains",
                target=LEAST,
            )
            yield row.of_calls(our_step(strategy), step, repeats=repeats, versions={peer: found})
