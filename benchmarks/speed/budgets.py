"""`budgets/...`: a whole adaptation on real pictures, against others until they are as accurate.

`python -m benchmarks.speed.budgets` takes a backbone of PACS, pretrained where it is missing. All
begin with its weights; others then train their usual budget, as published by hand, and with
pytorch-adapt and skada. Whether they are as accurate as ours is read off the test labels now and
then, in their favour: reading is not timed, and the first time counts.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters import adapt
from adapters.parts import unlock
from adapters.strategies.losses import information
from adapters.strategies.shot import pseudo_labels
from benchmarks.harness.cells import accuracy, prepare_backbone
from benchmarks.harness.folders import ROWS, results_of, runs_of
from benchmarks.harness.picture_benchmarks import PICTURES, at_size, load_pictures
from benchmarks.harness.rows import append_line
from benchmarks.options import PATH, data_option, users_mistakes
from benchmarks.speed.benchmark import write_table
from benchmarks.speed.compare import Comparison, SpeedRow
from benchmarks.speed.peers import Peer, peers_of
from benchmarks.speed.plain import Batch, PlainLoop
from da_compose import Backbone, Domain, Network, probabilities
from da_compose.evidence import TINY, entropy
from da_compose.images import ImageSet, to_pixels
from da_compose.inference import batches, predict_logits
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.statistics import estimate_statistics
from da_compose.training.pretrained import PRETRAINED_RECIPES

RECIPE = "lite0"
MOST_IMAGES, BATCH = 1000, 64
TEST_IMAGES, STATISTICS = 400, 256  # pictures to read an accuracy on, and its statistics of
EPOCHS = 15  # of the target's pictures, as SHOT is published
STEPS = 100  # of loops that pass the sources too
READ_EVERY = 16  # steps, an epoch of the target's pictures
RATE = 1e-4  # of Adam on all weights of a pretrained network
PSEUDO_LABELS = 0.3  # their weight in SHOT
GOAL = 5.0


@dataclass(frozen=True)
class Rival:
    """One way to adapt, before its first step; `advance(number)` takes one."""

    name: str
    words: str
    steps: int
    advance: Callable[[int], object]
    network: Network
    domain: Domain


@dataclass(frozen=True)
class Material:
    """What all begin with: a backbone, the sources' labelled pictures, the target's, its test."""

    backbone: Backbone
    sources: Mapping[str, ImageSet]
    target: ImageSet
    test: ImageSet

    def network(self) -> PretrainedNetwork:
        """A copy of the backbone's, without directions."""
        found = self.backbone.network
        assert isinstance(found, PretrainedNetwork)
        return deepcopy(found).with_directions(found.templates.directions[:0])

    def batch(self, of: ImageSet, number: int) -> Batch:
        """Pixels and labels of a step."""
        chosen = np.random.default_rng(number).integers(0, len(of), BATCH)
        return to_pixels(of.images[chosen]), torch.from_numpy(of.labels[chosen])

    def images(self, number: int) -> Tensor:
        """The target's pixels of a step."""
        return self.batch(self.target, number)[0]

    def rivals(self) -> Iterator[Rival]:
        """All others; a peer that is not installed is left out, and said."""
        yield self.tent()
        yield self.shot()
        for strategy in ("adversarial", "moment_matching"):
            yield self.published(strategy)
        ordinary, (name, *_) = self.network(), self.sources
        sources = [*self.sources.values()]
        for peer, version, objectives in peers_of(ordinary, ordinary.domains[name], RATE):
            one = objectives["adversarial"]
            advance = partial(self.of_peer, one, sources)
            words = f"adversarial by {peer} {version}: the sources in turn, all weights"
            yield Rival(f"adversarial/{peer}", words, STEPS, advance, one.network, one.domain)

    def of_peer(self, peer: Peer, sources: Sequence[ImageSet], number: int) -> object:
        """A step of a peer, on one source."""
        source = sources[number % len(sources)]
        return peer.step(self.batch(source, number), self.images(number))

    def tent(self) -> Rival:
        """Wang et al. 2021: entropy, by Adam at 0.001."""
        network = self.network()
        domain = network.new_domain("target").use_batch_statistics()
        optimizer = torch.optim.Adam(unlock(network, domain, "batch_norm"), lr=1e-3)

        def advance(number: int) -> None:
            found = probabilities(network(self.images(number), domain))
            _descend(optimizer, entropy(found).mean())

        return Rival("TENT", "TENT as published, by hand: gamma, beta", self.rounds, advance,
                     network, domain)  # fmt: skip

    def shot(self) -> Rival:
        """Liang et al. 2020: information, and pseudo-labels that are made anew each epoch."""
        network = self.network()
        domain = network.new_domain("target").use_batch_statistics()
        optimizer = torch.optim.SGD(_body(network), lr=1e-3, momentum=0.9, nesterov=True)
        labels = torch.zeros(len(self.target), dtype=torch.long)
        order = np.arange(len(self.target))

        def advance(number: int) -> None:
            place = number % ceil(len(order) / BATCH)
            if place == 0:
                labels.copy_(self.pseudo_labels(network, domain))
                np.random.default_rng(number).shuffle(order)
            chosen = order[place * BATCH : (place + 1) * BATCH]
            found = probabilities(network(to_pixels(self.target.images[chosen]), domain))
            wrong = functional.nll_loss(found.clamp_min(TINY).log(), labels[chosen])
            _descend(optimizer, PSEUDO_LABELS * wrong - information(found))

        words = "SHOT as published, by hand: all weights but the classifiers'"
        return Rival("SHOT", words, self.rounds, advance, network, domain)

    @torch.no_grad()
    def pseudo_labels(self, network: Network, domain: Domain) -> Tensor:
        """Of all of the target's pictures (M,)."""
        found = []
        for pixels in batches(network, self.target.images, BATCH):
            _, embedding = network.features(pixels, domain)
            found.append((embedding, probabilities(network.classify(embedding, domain))))
        embeddings, predictions = map(torch.cat, zip(*found, strict=True))
        return pseudo_labels(embeddings, predictions)

    def published(self, strategy: str) -> Rival:
        """ADDA or M3SDA with a batch of every source a step; all weights train."""
        network = self.network()
        target = network.new_domain("target")
        domains = [network.domains[name] for name in self.sources]
        loop = PlainLoop(network, domains, target, _body(network), rate=RATE, whole=True)
        step = getattr(loop, strategy)

        def advance(number: int) -> None:
            of_sources = [self.batch(source, number) for source in self.sources.values()]
            step(of_sources, self.images(number))

        words = f"{strategy} as published, by hand: {len(self.sources)} sources, all weights"
        return Rival(f"{strategy}/published", words, STEPS, advance, network, target)

    @property
    def rounds(self) -> int:
        """Steps of `EPOCHS`."""
        return EPOCHS * ceil(len(self.target) / BATCH)

    def accuracy_of(self, network: Network, domain: Domain) -> float:
        """Percent of the test split, under the target's own statistics.

        No `Backbone` is made of the network: that would freeze what trains.
        """
        tested = deepcopy(domain).use_batch_statistics(False)
        some = batches(network, self.target.images[:STATISTICS], BATCH)
        tested.set_statistics(*estimate_statistics(network, tested, some))
        found = probabilities(predict_logits(network, tested, self.test.images)).argmax(dim=1)
        return 100 * float((found.numpy() == self.test.labels).mean())


def some_of(images: ImageSet, count: int) -> ImageSet:
    """At most so many, drawn at random."""
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return ImageSet(images.images[chosen], images.labels[chosen])


def _body(network: Network) -> list[nn.Parameter]:
    """All weights but the classifiers', which train from now on."""
    fixed = {id(parameter) for parameter in network.heads.parameters()}
    found = [one for one in network.shared_parameters() if id(one) not in fixed and one.ndim]
    for one in found:
        one.requires_grad_(True)
    return found


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def compare_budgets(
    material: Material, read_every: int = READ_EVERY, steps: int | None = None
) -> Iterator[SpeedRow]:
    """A row for each rival; steps: at most so many of each."""
    started = time.perf_counter()
    found = adapt(material.backbone, material.target.images)
    ours = time.perf_counter() - started
    goal = accuracy(material.backbone, found.domain, material.test)
    for rival in material.rivals():
        budget = rival.steps if steps is None else min(steps, rival.steps)
        spent, read = until(material, rival, goal, budget, read_every)
        best = max(read)
        end = (
            f"as accurate after {len(read) * read_every} steps"
            if best >= goal
            else f"at best {best:.1f} % in its {budget} steps"
        )
        yield Comparison(
            name=f"budgets/{rival.name}",
            against=f"{rival.words}; ours {goal:.1f} % by {found.notes['strategy']}, it {end}",
            target=GOAL,
        ).of_values(ours, spent, unit="s")


def until(
    material: Material, rival: Rival, goal: float, steps: int, read_every: int
) -> tuple[float, list[float]]:
    """Seconds of a rival's steps until it is as accurate, or all of them; accuracies on its way."""
    spent, read = 0.0, []
    for first in range(0, steps, read_every):
        started = time.perf_counter()
        for number in range(first, min(first + read_every, steps)):
            rival.advance(number)
        spent += time.perf_counter() - started
        read.append(material.accuracy_of(rival.network, rival.domain))
        if read[-1] >= goal:
            break
    return spent, read


@click.command()
@click.option("--target", default="sketch", show_default=True, help="A domain of PACS.")
@click.option("--runs", type=PATH, default=runs_of("pacs"), help="Backbones.")
@click.option("--results", type=PATH, default=results_of(runs_of("speed")), help="Rows and table.")
@data_option
def main(target: str, runs: Path, results: Path, data_root: Path | None) -> None:
    """Rows and the table of speed."""
    size = PRETRAINED_RECIPES[RECIPE].image_size
    torch.set_num_threads(1)
    with users_mistakes():
        benchmark = at_size(PICTURES["pacs"], size)
        profile = replace(benchmark.profiles["full"], seeds=(0,))
        rotation = load_pictures("pacs", data_root, target, image_size=size)[0]
        (job,) = rotation.jobs(benchmark, profile, (RECIPE,), ("compositional",))
        domains = rotation.domains
        backbone = prepare_backbone(job, domains, job.folder(runs), "cpu")
        sources = {name: domains[name].train for name in job.sources}
        train, test = domains[target].train, domains[target].test
        seen, tested = some_of(train, MOST_IMAGES), some_of(test, TEST_IMAGES)
        material = Material(backbone, sources, seen, tested)
        for row in compare_budgets(material):
            append_line(results / ROWS, asdict(row))
            click.echo(f"{row.name}: ratio {row.ratio:.3g} ({row.against})")
        write_table(results)


if __name__ == "__main__":
    main()
