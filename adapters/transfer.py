"""A new labelled task on a frozen bank of templates, with few numbers of its own (section 4.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adapters.parts import check_parts, unlock
from adapters.start import NEAREST
from da_compose.context import undisturbed
from da_compose.images import to_pixels
from da_compose.model.contract import Network
from da_compose.model.domain import Domain
from da_compose.model.mixture import LearnedMixture, initial_xi
from da_compose.progress import phase
from da_compose.starts import MEAN, domain_like
from da_compose.statistics import estimate_statistics
from da_compose.storage.adapter import save_adapter
from da_compose.storage.backbone import Backbone
from da_compose.training.tasks import Task
from da_compose.training.trainer import PretrainConfig, Pretrainer

RANDOM = "random"
TRANSFERRED = ("heads", "batch_norm", "mixture_weights")  # what of a task may be learned
COMPARED_IMAGES = 500  # at most, to compare starts
USUAL = PretrainConfig(steps=150, batch_size=32, xi_rate=10.0, statistics_batches=20)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A new task on a backbone: its domain, and how it came about."""

    backbone: Backbone
    domain: Domain
    start: str  # the trained task it started from, `mean` or `random`
    scores: Mapping[str, float]  # of the starts compared: leave-one-out accuracy, percent
    learned: Mapping[str, int]  # how many numbers, by part

    @property
    def learned_parameters(self) -> int:
        """How many numbers were learned."""
        return sum(self.learned.values())

    def save(self, path: str | Path) -> None:
        """Write the task as an adapter file, which `load_adapter` reads on the same backbone."""
        notes = {
            "start": self.start, "scores": dict(self.scores),
            "learned_parameters": self.learned_parameters,
        }  # fmt: skip
        save_adapter(path, self.backbone, self.domain, notes)


@undisturbed()
def transfer(
    backbone: Backbone,
    task: Task,
    *,
    start: str = NEAREST,
    trains: Sequence[str] = TRANSFERRED,
    config: PretrainConfig = USUAL,
) -> Transfer:
    """Learn a new labelled task on a frozen backbone; the backbone stays as it is.

    start: the trained task whose xi, gamma and beta the new task begins with; `mean`: of all;
    `random`: a random xi, and the mean gamma and beta; `nearest`: the one of these, random aside,
    that `compare_starts` finds best, by training labels.
    trains: which of heads (logits), batch_norm (gamma, beta), mixture_weights (xi) are learned;
    batch-norm statistics are always the new task's.
    """
    trains = tuple(trains)
    if not trains:
        raise ValueError(f"trains must name some of {', '.join(TRANSFERRED)}, got none")
    check_parts(trains, TRANSFERRED)
    network = backbone.network
    scores: dict[str, float] = {}
    if start == NEAREST:
        scores = compare_starts(backbone, task, config.seed)
        start = max(scores, key=lambda name: scores[name])
    domain = start_domain(network, task.name, start, config.seed)
    network.own_heads(domain, task.class_names, config.seed)
    if network.config.signature is not None:
        trains = tuple(part for part in trains if part != "mixture_weights")
    if not trains:
        raise ValueError(
            "this backbone has a fixed signature and no mixture weights to learn; "
            "train heads or batch_norm too"
        )
    learned = {
        part: sum(p.numel() for p in unlock(network, domain, part))
        for part in TRANSFERRED
        if part in trains
    }
    unlock(network, domain, *trains)
    trainer = Pretrainer(network, {task.name: task.train}, config, {task.name: domain})
    with phase(f"learning {task.name}", config.steps) as learning:
        for _ in range(config.steps):
            learning.advance(note=f"accuracy {trainer.step()['accuracy']:.0f} %")
    trainer.finish()
    domain.requires_grad_(False)
    return Transfer(
        backbone=backbone,
        domain=domain,
        start=start,
        scores=scores,
        learned=learned,
    )


def start_domain(network: Network, name: str, start: str, seed: int) -> Domain:
    """A domain with xi, statistics, gamma and beta as at the start; the network's own heads."""
    known = [*network.domains]
    if not known:
        raise ValueError("this backbone has no trained task or domain to start from")
    one = start not in (MEAN, RANDOM)
    domain = domain_like(network, name, [network.domains[start]] if one else known)
    domain.heads, domain.class_names = None, None
    if start == RANDOM and isinstance(domain.mixture, LearnedMixture):
        config, generator = network.config, torch.Generator().manual_seed(seed)
        random = initial_xi(config.num_layers, config.num_templates, 1.0, generator)
        domain.mixture = network.new_domain(name, random).mixture
    return domain


@torch.no_grad()
def compare_starts(backbone: Backbone, task: Task, seed: int = 0) -> dict[str, float]:
    """Percent of the task's training images that each start classifies rightly without training.

    Each image goes to the nearest mean of the other images of a class (leave one out), by cosine
    of embeddings under the task's own batch-norm statistics. At most 500 images are used; no
    test image or label is.
    """
    network = backbone.network
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))
    chosen = order[:COMPARED_IMAGES].numpy()
    images = to_pixels(task.train.images[chosen])
    labels = torch.from_numpy(task.train.labels[chosen])
    batches = images.to(network.device).split(network.images_at_once)
    starts, scores = (MEAN, *network.domains.names), {}  # of equally good ones the first is taken
    with phase("choosing a start", len(starts)) as choosing:
        for start in starts:
            domain = start_domain(network, task.name, start, seed)
            domain.set_statistics(*estimate_statistics(network, domain, batches))
            embeddings = torch.cat([network.features(batch, domain)[1] for batch in batches])
            scores[start] = leave_one_out_accuracy(embeddings.cpu(), labels)
            choosing.advance()
    return scores


def leave_one_out_accuracy(embeddings: Tensor, labels: Tensor) -> float:
    """Percent of embeddings (M, F) nearest, by cosine, to the mean of the others of their class.

    Images that are alone in their class are not counted; 0 where all are.
    """
    embeddings = torch.nn.functional.normalize(embeddings, dim=1)
    classes, index = labels.unique(return_inverse=True)
    one_hot = torch.nn.functional.one_hot(index, len(classes)).to(embeddings.dtype)  # (M, N)
    sums = one_hot.T @ embeddings  # (N, F)
    similarity = embeddings @ torch.nn.functional.normalize(sums, dim=1).T  # (M, N)
    others = torch.nn.functional.normalize(sums[index] - embeddings, dim=1)
    similarity[torch.arange(len(index)), index] = (embeddings * others).sum(dim=1)
    counted = one_hot.sum(dim=0)[index] > 1
    if not counted.any():
        return 0.0
    return 100 * float((similarity.argmax(dim=1) == index)[counted].double().mean())
