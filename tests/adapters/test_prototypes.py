"""T3A: which images support a prototype, and what becomes of the domain."""

from dataclasses import asdict
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters import adapt, load_adaptation
from adapters.guard import Verdict
from adapters.prototypes import prototypes, with_prototypes
from da_compose import Backbone, Domain, load_backbone
from da_compose.images import to_pixels
from da_compose.starts import MEAN, make_start


def head_of(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    head = nn.Linear(len(weight[0]), len(weight)).requires_grad_(False)
    head.weight.copy_(torch.tensor(weight))
    head.bias.copy_(torch.tensor(bias))
    return head


def unit(*rows: tuple[float, ...]) -> Tensor:
    return functional.normalize(torch.tensor(rows))


def by_hand(head: nn.Linear, embeddings: Tensor, support: int) -> np.ndarray:
    """Section 3 of T3A in loops."""
    candidates = [(number, row) for number, row in enumerate(head.weight)]
    candidates += [(int(head(row).argmax()), row) for row in embeddings]
    found = []
    for number in range(len(head.weight)):
        own = []
        for label, row in candidates:
            chances = head(row).softmax(dim=0).double().numpy()
            if label == number:
                own.append(
                    (-(chances * np.log(chances)).sum(), (row / row.norm()).double().numpy())
                )
        own.sort(key=lambda pair: pair[0])
        mean = np.mean([row for _, row in own[:support]], axis=0)
        found.append(mean / np.linalg.norm(mean))
    return np.stack(found)


def test_the_surest_of_each_class_support_it():
    head = head_of([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    embeddings = torch.tensor([[9.0, 1.0], [3.0, 2.9], [1.0, 8.0], [5.0, 0.0]])
    one = unit((9.0, 1.0))[0]  # of logits 8 apart; (5, 0), 5 apart, comes next
    torch.testing.assert_close(
        prototypes(head, embeddings, 1), torch.stack([one, *unit((1.0, 8.0))])
    )
    both = unit((9.0, 1.0), (5.0, 0.0)).mean(dim=0)
    other = unit((1.0, 8.0), (0.0, 1.0)).mean(dim=0)  # the classifier's own weights are the second
    expected = functional.normalize(torch.stack([both, other]))
    torch.testing.assert_close(prototypes(head, embeddings, 2), expected)


def test_a_class_that_no_image_is_of_keeps_its_weights():
    head = head_of([[2.0, 0.0], [0.0, 3.0]], [0.0, -100.0])
    found = prototypes(head, torch.tensor([[1.0, 1.0], [0.0, 4.0]]), 1)
    torch.testing.assert_close(found[1], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("support", [1, 3, 100])
@pytest.mark.parametrize("seed", range(3))
def test_prototypes_are_means_of_the_supports(support: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(4, 5, generator=generator), torch.randn(4, generator=generator)
    head = head_of(weight.tolist(), bias.tolist())
    embeddings = torch.randn(30, 5, generator=generator)
    found = prototypes(head, embeddings, support)
    torch.testing.assert_close(found.double(), torch.tensor(by_hand(head, embeddings, support)))


def start_of(backbone: Backbone, images: np.ndarray) -> Domain:
    return make_start(backbone, MEAN, "target", images).target


def test_only_the_heads_become_others(backbone: Backbone, make_pixels):
    images = make_pixels(300, size=8)  # more than a batch of prediction
    start = start_of(backbone, images)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    heads = [value.clone() for value in backbone.network.heads.parameters()]
    domain = with_prototypes(backbone.network, start, images, support=3)
    assert domain is not start and start.heads is None and domain.heads is not None
    after = domain.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    kept = backbone.network.heads.parameters()
    assert all(torch.equal(one, two) for one, two in zip(heads, kept, strict=True))
    with torch.no_grad():
        embeddings = backbone.network.features(to_pixels(images), start)[1]
    for own, shared in zip(domain.heads, backbone.network.heads, strict=True):
        assert isinstance(own, nn.Linear) and isinstance(shared, nn.Linear)
        torch.testing.assert_close(own.weight, prototypes(shared, embeddings, 3))
        assert not own.bias.any() and not own.weight.requires_grad


def test_adapt_sets_the_heads_of_the_chosen_start(backbone: Backbone, make_pixels):
    images = make_pixels(60)
    found = adapt(backbone, images, "t3a", guard=False)
    start = adapt(backbone, images, "chosen_start").domain
    expected = with_prototypes(backbone.network, start, images).state_dict()
    assert found.domain.state_dict().keys() == expected.keys()
    for name, value in found.domain.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert (found.learned_parameters, found.history) == (0, [])
    assert "guard" not in found.notes and found.last is found.domain


@pytest.mark.parametrize("trusted", [True, False])
def test_the_guard_goes_back_to_the_start(backbone, make_pixels, monkeypatch, trusted: bool):
    verdict = Verdict(trusted, changed=0.5, diversity=1.0, reason="so it is")
    ending = import_module("adapters.adapt")  # `adapters.adapt` is the function
    monkeypatch.setattr(ending, "judge_learning", lambda *_: verdict)
    found = adapt(backbone, make_pixels(60), "t3a")
    assert found.notes["guard"] == asdict(verdict)
    assert (found.domain.heads is not None) == trusted
    assert found.last is not None and found.last.heads is not None
    assert (found.scores["adapted"] == found.scores["start"]) != trusted


def test_an_adapter_file_keeps_the_prototypes(make_backbone, make_pixels, tmp_path):
    backbone, images = make_backbone(), make_pixels(60)
    found = adapt(backbone, images, "t3a", guard=False)
    backbone.save(tmp_path / "backbone")
    found.save(tmp_path / "adapter")
    loaded = load_adaptation(tmp_path / "adapter", load_backbone(tmp_path / "backbone"))
    assert torch.equal(loaded.predict_proba(images), found.predict_proba(images))
    with torch.no_grad():
        torch.testing.assert_close(found.model()(to_pixels(images)), found.predict_proba(images))
