"""Many labelled tasks on one template bank (paper, section 4.3)."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from da_compose import progress
from da_compose.images import ImageSet
from da_compose.model.config import NetworkConfig
from da_compose.model.contract import Network
from da_compose.model.domain import Domain
from da_compose.model.network import CompositionalNetwork
from da_compose.storage.backbone import Backbone
from da_compose.storage.schema import check_class_names, is_domain_name
from da_compose.training.run import run_training
from da_compose.training.trainer import PretrainConfig

# Usual `xi_rate` of tasks: at that of adaptation's sources, 3, their xi hardly part in a short run
XI_RATE = 30.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled task: images with labels below the number of its class names."""

    name: str  # one word, as of a domain
    train: ImageSet
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not is_domain_name(self.name):
            raise ValueError(f"task name {self.name!r}: use one word, of letters, digits, _ - .")
        check_class_names(self.class_names)
        highest = int(self.train.labels.max())
        if int(self.train.labels.min()) < 0 or highest >= len(self.class_names):
            raise ValueError(
                f"labels of task {self.name} must be in 0..{len(self.class_names) - 1}, one for "
                f"each class name, got {self.train.labels.min()}..{highest}"
            )


def train_tasks(
    tasks: Sequence[Task],
    config: NetworkConfig,
    pretraining: PretrainConfig,
    folder: Path,
    *,
    own_batch_norm: bool = True,
    first_xi: Tensor | None = None,
    device: str = "cpu",
    show_progress: bool = True,
) -> Backbone:
    """Train a network on all tasks together; each is a domain of the backbone, by name.

    Templates and adapters are shared. A task has its own xi (none where `config` fixes the
    signature: the shared layers of the "patches" baseline), batch norm (statistics, gamma, beta)
    and logits, for any number of classes; without `own_batch_norm` gamma and beta are shared, or
    mixed from the templates', as in adaptation. Each step takes a batch of every task, or of
    `pretraining.domains_a_step`; small tasks are repeated. The backbone's class names, and logits
    that nothing trains, are as of the task with most classes. An interrupted run in `folder` goes
    on; its state stays until `discard_state`. Of one process group, all processes call it.

    first_xi: logits (L, K) that every task's mixture starts from; None: random ones.
    """
    names = [task.name for task in tasks]
    if not tasks or len(set(names)) < len(names):
        raise ValueError(f"tasks need different names and at least one, got {names}")
    if pretraining.pooled:
        raise ValueError("tasks have classes of their own: train them without `pooled`")
    most = max((task.class_names for task in tasks), key=len)
    config = replace(config, num_classes=len(most))
    network = CompositionalNetwork(config, pretraining.seed, first_xi).to(device)
    for number, task in enumerate(tasks):
        domain = network.new_domain(task.name)
        if own_batch_norm:
            network.own_batch_norm(domain)
        network.own_heads(domain, task.class_names, seed=pretraining.seed * 1000 + number)
        network.domains.add(domain)
    sources = {task.name: task.train for task in tasks}
    with progress.show_progress(show_progress):
        run_training(network, sources, pretraining, folder)
    return Backbone(network, most, {}, {"tasks": names, "seed": pretraining.seed})


def parameters_behind(network: Network, domains: Sequence[Domain]) -> int:
    """How many learned numbers the predictions of these domains depend on, theirs and shared.

    Shared logits, gamma and beta that all of them have their own of are not among them.
    """
    size, channels = network.config.image_size, network.config.image_channels
    network, copies = deepcopy((network, domains))  # a domain of the network stays one
    for module in (network, *copies):
        module.requires_grad_(True).zero_grad()
    image = torch.zeros(1, channels, size, size, device=network.device)
    for domain in copies:
        network(image, domain).sum().backward()
    parts = (*network.shared_parameters(), *(p for domain in copies for p in domain.parameters()))
    return sum(p.numel() for p in {id(p): p for p in parts}.values() if p.grad is not None)
