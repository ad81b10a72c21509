"""Many labelled tasks on one bank, each with batch norm and logits of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from da_compose import Backbone, NetworkConfig, load_adapter, load_backbone, save_adapter
from da_compose.images import ImageSet, to_pixels
from da_compose.model.batched import predict_rows
from da_compose.model.plain import Classifier, materialize
from da_compose.training.tasks import Task, parameters_behind, train_tasks
from da_compose.training.trainer import PretrainConfig

TWO, THREE = ("dark", "bright"), ("zero", "one", "two")


@pytest.fixture
def make_tasks(make_images) -> Callable[[], list[Task]]:
    """A task of three classes and one of two, of unequal sizes."""

    def make() -> list[Task]:
        three, two = make_images(30), make_images(18, seed=1)
        two = ImageSet(two.images, np.minimum(two.labels, 1))
        return [
            Task(name="three", train=three, class_names=THREE),
            Task(name="two", train=two, class_names=TWO),
        ]

    return make


@pytest.fixture
def train(
    make_tasks: Callable[[], list[Task]], make_config: Callable[..., NetworkConfig], tmp_path: Path
) -> Callable[..., Backbone]:
    def run(
        folder: str = "run",
        signature: tuple[int, ...] | None = None,
        own_batch_norm: bool = True,
        **changes: Any,
    ) -> Backbone:
        values = {"steps": 40, "batch_size": 12, "learning_rate": 0.03, "statistics_batches": 4}
        return train_tasks(
            make_tasks(),
            make_config(signature=signature),
            PretrainConfig(**(values | changes)),
            tmp_path / folder,
            own_batch_norm=own_batch_norm,
            show_progress=False,
        )

    return run


def accuracy(backbone: Backbone, task: Task) -> float:
    domain = backbone.network.domains[task.name]
    predicted = backbone.network(to_pixels(task.train.images), domain).sum(0).argmax(-1)
    return float((predicted.numpy() == task.train.labels).mean())


def test_tasks_of_unlike_classes_are_learned_together(train, make_tasks) -> None:
    backbone, tasks = train(), make_tasks()
    assert all(accuracy(backbone, task) > 0.8 for task in tasks)
    domains = backbone.network.domains
    assert [backbone.class_names_of(domains[task.name]) for task in tasks] == [THREE, TWO]
    assert not domains["three"].mixture().equal(domains["two"].mixture())


def test_what_is_of_a_task_alone_does_not_touch_the_other(train, make_images) -> None:
    backbone = train(steps=2)
    network, images = backbone.network, to_pixels(make_images(4).images)
    before = network(images, network.domains["three"])
    with torch.no_grad():
        for parameter in network.domains["two"].parameters():
            parameter.zero_()
        for head in network.heads:
            head.weight.zero_()
        for name, parameter in network.named_parameters():
            if name.endswith(("gamma", "beta")) and not name.startswith("domains."):
                parameter.fill_(7.0)
    assert network(images, network.domains["three"]).equal(before)


def test_a_fixed_signature_leaves_tasks_no_mixture_to_learn(train, make_tasks) -> None:
    backbone = train(signature=(0, 0, 1))
    three, two = backbone.network.domains
    assert three.mixture().equal(two.mixture())
    assert not [*three.mixture.parameters()]
    assert all(accuracy(backbone, task) > 0.8 for task in make_tasks())


def test_tasks_come_back_from_files_as_they_were(train, tmp_path: Path) -> None:
    backbone = train(steps=3)
    backbone.save(tmp_path / "tasks.safetensors")
    again = load_backbone(tmp_path / "tasks.safetensors")
    images = torch.randn(4, 3, 8, 8)
    for domain in backbone.network.domains:
        loaded = again.network.domains[domain.name]
        assert loaded.class_names == domain.class_names
        assert again.network(images, loaded).equal(backbone.network(images, domain))
        path = tmp_path / f"{domain.name}.safetensors"
        save_adapter(path, backbone, domain, {})
        adapter, _ = load_adapter(path, again)
        assert adapter.class_names == domain.class_names
        assert again.network(images, adapter).equal(backbone.network(images, domain))


def test_a_task_is_materialized_with_its_own_batch_norm_and_logits(train) -> None:
    network = train(steps=3).network
    images = torch.randn(4, 3, 8, 8)
    for domain in network.domains:
        plain = materialize(network, domain)
        torch.testing.assert_close(plain(images), network(images, domain))
        probabilities = Classifier(plain)(images)
        assert probabilities.shape == (4, len(domain.class_names or ()))


def test_training_sees_the_gamma_and_beta_of_the_task(make_network) -> None:
    """They start as what the network would use, so they change nothing at first."""
    network, images = make_network(), torch.randn(6, 3, 8, 8)
    domain = network.domains["a"]
    for mode in (True, False):
        expected = network(images, domain.use_batch_statistics(mode))
        domain.gamma = domain.beta = None
        network.own_batch_norm(domain)
        torch.testing.assert_close(network(images, domain), expected)
        with torch.no_grad():
            domain.state_dict()["gamma"].add_(0.5)
        assert not network(images, domain).allclose(expected)
        domain.gamma = domain.beta = None


def test_parameters_behind_tasks_are_those_that_predictions_depend_on(train, make_images) -> None:
    network = train(steps=1).network
    config, domains = network.config, [*network.domains]
    own = [2 * config.num_statistics + 2 * len(d.class_names or ()) * 6 + 6 for d in domains]
    adapters = 4 * 3 * 16 + 4 + 4 * 6 + 6 * 5  # input adapter's convolution, both of the output's
    templates = sum(
        parameter.numel()
        for name, parameter in network.templates.named_parameters()
        if name not in ("gamma", "beta")
    )
    assert parameters_behind(network, domains[:1]) == templates + adapters + own[0]
    assert parameters_behind(network, domains) == templates + adapters + sum(own)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_without_batch_norm_of_their_own_tasks_share_gamma_and_beta(train) -> None:
    network = train(steps=1, own_batch_norm=False).network
    assert all(domain.gamma is None for domain in network.domains)
    own = 2 * 2 * network.config.num_statistics
    with_own = train("other", steps=1).network
    shared = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if name.endswith(("gamma", "beta"))
    )
    counts = [parameters_behind(n, [*n.domains]) for n in (with_own, network)]
    assert counts[0] - counts[1] == own - shared


def test_rows_of_tasks_are_not_mixed_in_one_table(train) -> None:
    backbone = train(steps=1)
    with pytest.raises(ValueError, match="three, two: classes of their own"):
        predict_rows(backbone.network, torch.rand(2, 3, 8, 8), ["three", "two"])


def test_each_step_takes_so_many_tasks_as_asked_for(make_tasks, train) -> None:
    backbone = train(domains_a_step=1, steps=60)
    assert all(accuracy(backbone, task) > 0.7 for task in make_tasks())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooled": True}, "without `pooled`"),
        ({"domains_a_step": 0}, "domains_a_step must be at least 1"),
    ],
)
def test_settings_that_tasks_cannot_have_are_refused(train, change, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(**change)


def test_tasks_need_names_of_their_own(make_tasks, make_config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different names"):
        train_tasks([make_tasks()[0]] * 2, make_config(), PretrainConfig(steps=1), tmp_path)


def test_a_label_without_a_class_name_is_refused(make_images) -> None:
    with pytest.raises(ValueError, match=r"labels of task t must be in 0\.\.1"):
        Task(name="t", train=make_images(6), class_names=TWO)
