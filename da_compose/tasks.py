"""Many labelled tasks on one template bank (paper, section 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from da_compose.backbone import Backbone
from da_compose.domain import Domain
from da_compose.images import ImageSet
from da_compose.network import CompositionalNetwork, NetworkConfig
from da_compose.pretraining import PretrainConfig
from da_compose.training_run import discard_state, pretrain


@dataclass(frozen=True, kw_only=True)
class Task:
    """A labelled task: images with labels below the number of its class names."""

    name: str  # one word, as of a domain
    train: ImageSet
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
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
    show_progress: bool = True,
) -> Backbone:
    """Train a network on all tasks together; each is a domain of the backbone, by name.

    Templates and adapters are shared. A task has its own xi (none where `config` fixes the
    signature: the shared layers of the "patches" baseline), batch norm (statistics, gamma, beta)
    and logits, for any number of classes. Each step takes a batch of every task, or of
    `pretraining.domains_a_step`; small tasks are repeated. The backbone's class names, and logits
    that nothing trains, are as of the task with most classes. An interrupted run in `folder` goes
    on. Of one process group, all processes call it.
    """
    names = [task.name for task in tasks]
    if not tasks or len(set(names)) < len(names):
        raise ValueError(f"tasks need different names and at least one, got {names}")
    if pretraining.pooled:
        raise ValueError("tasks have classes of their own: train them without `pooled`")
    most = max((task.class_names for task in tasks), key=len)
    network = CompositionalNetwork(replace(config, num_classes=len(most)), seed=pretraining.seed)
    for number, task in enumerate(tasks):
        network.domains.add(new_task_domain(network, task, seed=pretraining.seed * 1000 + number))
    sources = {task.name: task.train for task in tasks}
    pretrain(network, sources, pretraining, folder, show_progress=show_progress)
    discard_state(folder)
    return Backbone(network, most, {}, {"tasks": names, "seed": pretraining.seed})


def new_task_domain(network: CompositionalNetwork, task: Task, seed: int = 0) -> Domain:
    """A domain with batch norm and random classifiers of its own, not yet added to `domains`."""
    domain = network.new_domain(task.name)
    network.own_batch_norm(domain)
    network.own_heads(domain, task.class_names, seed)
    return domain
