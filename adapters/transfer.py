"""A new labelled task on a frozen bank of templates, with few numbers of its own (section 4.3)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from da_compose.images import to_pixels
from da_compose.model.domain import Domain
from da_compose.model.mixture import initial_xi
from da_compose.model.network import CompositionalNetwork
from da_compose.statistics import average_statistics, estimate_statistics
from da_compose.storage.adapter import save_adapter
from da_compose.storage.backbone import Backbone
from da_compose.training.tasks import Task
from da_compose.training.trainer import PretrainConfig, Pretrainer

NEAREST, MEAN, RANDOM = "nearest", "mean", "random"
LOGITS, BATCH_NORM, MIXTURE_WEIGHTS = PARTS = ("logits", "batch_norm", "mixture_weights")
COMPARED_IMAGES = 500  # at most, to compare starts
BATCH = 200  # images in a forward pass
USUAL = PretrainConfig(steps=150, batch_size=32, xi_rate=10.0, statistics_batches=20)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A new task on a backbone: its domain, and how it came about."""

    backbone: Backbone
    domain: Domain
    start: str  # the trained task it started from, `mean` or `random`
    scores: Mapping[str, float]  # of the starts compared: leave-one-out accuracy, percent
    learned_parameters: int

    def save(self, path: str | Path) -> None:
        """Write the task as an adapter file, which `load_adapter` reads on the same backbone."""
        notes = {
            "start": self.start, "scores": dict(self.scores),
            "learned_parameters": self.learned_parameters,
        }  # fmt: skip
        save_adapter(path, self.backbone, self.domain, notes)


def transfer(
    backbone: Backbone,
    task: Task,
    *,
    start: str = NEAREST,
    trains: Sequence[str] = PARTS,
    config: PretrainConfig = USUAL,
) -> Transfer:
    """Learn a new labelled task on a frozen backbone; the backbone stays as it is.

    start: the trained task whose xi, gamma and beta the new task begins with; `mean`: of all;
    `random`: a random xi, and the mean gamma and beta; `nearest`: the one of these, random aside,
    that `compare_starts` finds best, by training labels.
    trains: which of logits, batch_norm (gamma, beta) and mixture_weights (xi) are learned;
    batch-norm statistics are always the new task's.
    """
    trains = tuple(trains)
    if not trains or set(trains) - set(PARTS):
        raise ValueError(f"trains must name some of {', '.join(PARTS)}, got {trains}")
    network = backbone.network
    scores: dict[str, float] = {}
    if start == NEAREST:
        scores = compare_starts(backbone, task, config.seed)
        start = max(scores, key=lambda name: scores[name])
    domain = start_domain(network, task.name, start, config.seed)
    network.own_heads(domain, task.class_names, config.seed)
    if BATCH_NORM in trains:
        network.own_batch_norm(domain)
    learned = trained_parts(domain, trains)
    if not learned:
        raise ValueError(
            "this backbone has a fixed signature and no mixture weights to learn; "
            f"train {LOGITS} or {BATCH_NORM} too"
        )
    domain.requires_grad_(False)
    for parameter in learned:
        parameter.requires_grad_(True)
    trainer = Pretrainer(network, {task.name: task.train}, config, {task.name: domain})
    for _ in range(config.steps):
        trainer.step()
    trainer.finish()
    domain.requires_grad_(False)
    return Transfer(
        backbone=backbone,
        domain=domain,
        start=start,
        scores=scores,
        learned_parameters=sum(parameter.numel() for parameter in learned),
    )


def trained_parts(domain: Domain, trains: Sequence[str]) -> list[torch.nn.Parameter]:
    """The parameters of a task that the named parts are."""
    found: list[torch.nn.Parameter] = []
    if LOGITS in trains and domain.heads is not None:
        found += domain.heads.parameters()
    if BATCH_NORM in trains and domain.gamma is not None and domain.beta is not None:
        found += [domain.gamma, domain.beta]
    if MIXTURE_WEIGHTS in trains:
        found += domain.mixture.parameters()
    return found


def start_domain(network: CompositionalNetwork, name: str, start: str, seed: int) -> Domain:
    """A domain with xi, statistics, gamma and beta as at the start; the network's own heads."""
    known = [*network.domains]
    if not known:
        raise ValueError("this backbone has no trained task or domain to start from")
    if start not in (MEAN, RANDOM):
        domain = deepcopy(network.domains[start])
        domain.name, domain.heads, domain.class_names = name, None, None
        return domain
    fixed = network.config.signature is not None
    xi = None if fixed else _mean_xi(known) if start == MEAN else _random_xi(network, seed)
    domain = network.new_domain(name, xi)
    domain.set_statistics(*average_statistics([(d.mean, d.var) for d in known]))
    gammas = [d.gamma.detach() for d in known if d.gamma is not None]
    betas = [d.beta.detach() for d in known if d.beta is not None]
    if len(gammas) == len(known):
        domain.gamma = torch.nn.Parameter(torch.stack(gammas).mean(dim=0))
        domain.beta = torch.nn.Parameter(torch.stack(betas).mean(dim=0))
    return domain


def _mean_xi(domains: Sequence[Domain]) -> Tensor:
    """Logits (L, K) of the mean of the mixtures."""
    return torch.stack([domain.mixture() for domain in domains]).mean(dim=0).log()


def _random_xi(network: CompositionalNetwork, seed: int) -> Tensor:
    """Logits (L, K) as of a network before training."""
    config, generator = network.config, torch.Generator().manual_seed(seed)
    return initial_xi(config.num_layers, config.num_templates, 1.0, generator)


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
    batches = images.to(network.device).split(BATCH)
    scores = {}
    for start in (MEAN, *network.domains.names):  # of equally good ones the first is taken
        domain = start_domain(network, task.name, start, seed)
        domain.set_statistics(*estimate_statistics(network, domain, batches))
        embeddings = torch.cat([network.features(batch, domain)[1] for batch in batches])
        scores[start] = leave_one_out_accuracy(embeddings.cpu(), labels)
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
