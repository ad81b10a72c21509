"""A new labelled task on a frozen bank of templates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.start import NEAREST
from adapters.transfer import (
    RANDOM,
    TRANSFERRED,
    compare_starts,
    leave_one_out_accuracy,
    start_domain,
    transfer,
)
from da_compose import Backbone, CompositionalNetwork, Domain, load_adapter
from da_compose.images import ImageSet, to_pixels
from da_compose.starts import MEAN
from da_compose.training.tasks import Task
from da_compose.training.trainer import PretrainConfig

CLASSES = ("zero", "one", "two")
QUICK = PretrainConfig(steps=2, batch_size=6, statistics_batches=2)


def own_domain(network: CompositionalNetwork, task: Task) -> Domain:
    domain = network.new_domain(task.name)
    network.own_batch_norm(domain)
    network.own_heads(domain, task.class_names)
    return domain


@pytest.fixture
def bank(make_network, make_images) -> Backbone:
    """Two tasks whose every number is random."""
    network = make_network(domains=())
    generator = torch.Generator().manual_seed(5)
    for name in ("a", "b"):
        task = Task(name=name, train=make_images(6), class_names=CLASSES)
        domain = own_domain(network, task)
        with torch.no_grad():
            for value in (*domain.parameters(), domain.mean, domain.var):
                value += torch.rand(value.shape, generator=generator)
        network.domains.add(domain)
    return Backbone(network.eval(), CLASSES, {})


@pytest.fixture
def new(make_images) -> Task:
    return Task(name="new", train=make_images(30, seed=3), class_names=CLASSES)


def state(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.network.state_dict().items()}


@pytest.mark.parametrize("trains", [("heads",), ("batch_norm",), ("mixture_weights",), TRANSFERRED])
def test_only_the_named_parts_move_and_the_backbone_stays(bank, new, trains) -> None:
    before = state(bank)
    found = transfer(bank, new, start="a", trains=trains, config=QUICK)
    after = bank.network.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())
    fresh = start_domain(bank.network, "new", "a", seed=0)
    bank.network.own_heads(fresh, CLASSES, seed=0)
    start, reached = fresh.state_dict(), found.domain.state_dict()
    parts = {
        "heads": [name for name in start if name.startswith("heads")],
        "batch_norm": ["gamma", "beta"],
        "mixture_weights": ["mixture.xi"],
    }
    for part, names in parts.items():
        assert all(start[name].equal(reached[name]) == (part not in trains) for name in names)
    assert not start["mean"].equal(reached["mean"])  # statistics are always the new task's


def test_learned_numbers_are_counted(bank, new) -> None:
    config = bank.network.config
    sizes = {
        "heads": 2 * 3 * (config.embedding + 1),
        "batch_norm": 2 * config.num_statistics,
        "mixture_weights": config.num_layers * config.num_templates,
    }
    for part, size in sizes.items():
        found = transfer(bank, new, start=MEAN, trains=[part], config=QUICK)
        assert found.learned_parameters == size
        assert found.learned == {part: size}
    found = transfer(bank, new, start=MEAN, config=QUICK)
    assert dict(found.learned) == sizes and list(found.learned) == list(TRANSFERRED)
    assert found.learned_parameters == sum(sizes.values())


def test_a_separable_task_is_learned_with_all_parts(bank, new, make_images) -> None:
    config = PretrainConfig(steps=60, batch_size=15, learning_rate=0.03, statistics_batches=5)
    found = transfer(bank, new, config=config)
    test = make_images(30, seed=9)
    predicted = bank.network(to_pixels(test.images), found.domain).sum(0).argmax(-1)
    assert float((predicted.numpy() == test.labels).mean()) > 0.8
    assert found.start in found.scores
    assert found.scores[found.start] == max(found.scores.values())


def test_the_same_seed_gives_the_same_task(bank, new) -> None:
    first, again = (transfer(bank, new, start=RANDOM, config=QUICK).domain for _ in range(2))
    found = again.state_dict()
    assert all(value.equal(found[name]) for name, value in first.state_dict().items())


def test_an_adapter_file_holds_the_task(bank, new, tmp_path: Path) -> None:
    found = transfer(bank, new, start=NEAREST, config=QUICK)
    found.save(tmp_path / "new.safetensors")
    domain, notes = load_adapter(tmp_path / "new.safetensors", bank)
    images = torch.randn(4, 3, 8, 8)
    assert bank.network(images, domain).equal(bank.network(images, found.domain))
    assert notes["start"] == found.start
    assert notes["learned_parameters"] == found.learned_parameters


def test_mean_start_averages_the_logits_of_templates_gamma_and_beta(bank) -> None:
    domain = start_domain(bank.network, "new", MEAN, 0).state_dict()
    known = [domain.state_dict() for domain in bank.network.domains]
    for name in ("mixture.xi", "gamma", "beta"):
        average = torch.stack([state[name] for state in known]).mean(dim=0)
        torch.testing.assert_close(domain[name], average)


def test_starts_are_compared_without_the_order_of_images_or_random(bank, new) -> None:
    scores = compare_starts(bank, new)
    assert list(scores) == [MEAN, "a", "b"]
    backwards = ImageSet(new.train.images[::-1].copy(), new.train.labels[::-1].copy())
    other = compare_starts(bank, Task(name="new", train=backwards, class_names=CLASSES))
    assert other == pytest.approx(scores)


def test_leave_one_out_equals_its_slow_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    labels = torch.tensor([0, 0, 0, 3, 3, 3, 3, 5, 5, 5, 5, 9])
    right, counted = 0, 0
    for i in range(12):
        cosines = {}
        for label in (0, 3, 5, 9):
            others = [unit[j] for j in range(12) if labels[j] == label and j != i]
            if others:
                cosines[label] = float(cosine(unit[i], torch.stack(others).sum(dim=0), dim=0))
        answer = max(cosines, key=lambda label: cosines[label])
        if int((labels == labels[i]).sum()) > 1:
            counted += 1
            right += answer == int(labels[i])
    assert leave_one_out_accuracy(embeddings, labels) == pytest.approx(100 * right / counted)


def test_leave_one_out_of_single_images_is_nothing() -> None:
    assert leave_one_out_accuracy(torch.eye(3), torch.arange(3)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trains": ()}, "trains must name some of heads, batch_norm, mixture_weights"),
        ({"trains": ("xi",)}, "cannot train xi; choose from heads, batch_norm, mixture_weights"),
        ({"start": "c"}, "no domain 'c'; there are: a, b"),
    ],
)
def test_mistakes_are_named(bank, new, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transfer(bank, new, config=QUICK, **options)


def test_a_bank_of_a_fixed_signature_starts_from_its_layers(make_network, make_images) -> None:
    network = make_network(domains=(), signature=(0, 1, 0))
    known = Task(name="a", train=make_images(12), class_names=CLASSES)
    network.domains.add(own_domain(network, known))
    bank, new = Backbone(network, CLASSES, {}), replace(known, name="new")
    for start in ("a", MEAN, RANDOM):
        found = transfer(bank, new, start=start, config=QUICK)
        assert found.domain.mixture().equal(network.domains["a"].mixture())
