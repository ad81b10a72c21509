import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.studies import criteria
from benchmarks.studies.criteria import (
    CRITERIA,
    TEMPERATURE,
    Outputs,
    compared,
    density_ratio,
    observe,
    source_embeddings,
)
from da_compose import Backbone, probabilities
from da_compose.inference import predict_logits
from da_compose.knowledge import SourceKnowledge
from tests.adapters.conftest import build_backbone, random_images


@pytest.fixture
def backbone() -> Backbone:
    return build_backbone()


@pytest.fixture
def make_pixels():
    return random_images


IMAGES, CLASSES, FEATURES, REMEMBERED = 60, 3, 4, 90


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def knowing(embeddings: Tensor, labels: Tensor) -> SourceKnowledge:
    """What is known of a source of no more images than are remembered."""
    return SourceKnowledge(
        first=embeddings.mean(dim=0),
        second=embeddings.square().mean(dim=0),
        block_features=torch.zeros(0),
        embeddings=embeddings,
        labels=labels,
        num_images=len(embeddings),
    )


def sure_of(classes: Tensor, by: float = 8.0) -> Tensor:
    """Logits of both heads (2, M, N) that are certain of these classes."""
    return by * torch.nn.functional.one_hot(classes, CLASSES).double().repeat(2, 1, 1)


@pytest.fixture
def outputs() -> Outputs:
    """A candidate of random outputs."""
    logits = random(2, IMAGES, CLASSES)
    return Outputs(
        logits=logits,
        embeddings=random(IMAGES, FEATURES, seed=1) + 0.3,
        consensus=probabilities(random(2, IMAGES, CLASSES, seed=2)),
        source_logits=random(2, 2 * REMEMBERED, CLASSES, seed=3),
        knowledge={
            name: knowing(
                random(REMEMBERED, FEATURES, seed=seed), torch.arange(REMEMBERED) % CLASSES
            )
            for seed, name in enumerate(("left", "right"), start=4)
        },
    )


@pytest.fixture
def good() -> Outputs:
    """Certain, balanced and right on the target, whose embeddings lie where the sources' do."""
    labels = torch.arange(REMEMBERED) % CLASSES
    embeddings = 3 * torch.eye(FEATURES, dtype=torch.float64)[labels]
    source, target = (embeddings + random(*embeddings.shape, seed=seed) for seed in (0, 1))
    return Outputs(
        logits=sure_of(labels),
        embeddings=target,
        consensus=probabilities(sure_of(labels, by=2)),
        source_logits=sure_of(labels),
        knowledge={"left": knowing(source, labels)},
    )


@pytest.fixture
def bad(good: Outputs) -> Outputs:
    """Scattered, with heads that differ, on embeddings where heads are wrong on the sources."""
    labels = good.knowledge["left"].labels
    wrong = torch.where(labels == 2, 0, labels)  # the heads do not know class 2
    return replace(
        good,
        logits=3 * random(2, REMEMBERED, CLASSES),
        embeddings=good.embeddings[labels == 2],
        source_logits=sure_of(wrong),
    )


def rows(outputs: Outputs) -> list[list[float]]:
    return outputs.prediction.tolist()


def slow_entropy(row: list[float]) -> float:
    return -sum(share * math.log(share) for share in row if share > 0)


def slow_information(outputs: Outputs) -> float:
    mean = [sum(column) / IMAGES for column in zip(*rows(outputs), strict=True)]
    return slow_entropy(mean) + slow_confidence(outputs)


def slow_confidence(outputs: Outputs) -> float:
    return -sum(slow_entropy(row) for row in rows(outputs)) / IMAGES


def slow_bnm(outputs: Outputs) -> float:
    singular = np.linalg.svd(outputs.prediction.numpy(), compute_uv=False)
    return float(singular.sum()) / math.sqrt(IMAGES * CLASSES)


def slow_snd(outputs: Outputs) -> float:
    total = 0.0
    for place, row in enumerate(rows(outputs)):
        powers = []
        for other_place, other in enumerate(rows(outputs)):
            if other_place != place:
                product = sum(a * b for a, b in zip(row, other, strict=True))
                powers.append(
                    math.exp(product / math.hypot(*row) / math.hypot(*other) / TEMPERATURE)
                )
        total += slow_entropy([power / sum(powers) for power in powers])
    return total / IMAGES


def slow_heads(outputs: Outputs) -> float:
    first, second = outputs.logits.numpy().argmax(axis=2)
    return sum(a == b for a, b in zip(first, second, strict=True)) / IMAGES


def slow_moments(outputs: Outputs) -> float:
    target = outputs.embeddings.numpy()
    apart = 0.0
    for known in outputs.knowledge.values():
        source = known.embeddings.numpy()
        for power in (1, 2):
            apart += np.linalg.norm((target**power).mean(axis=0) - (source**power).mean(axis=0))
    return -float(apart) / len(outputs.knowledge)


def slow_dev(outputs: Outputs) -> float:
    weights = density_ratio(source_embeddings(outputs.knowledge), outputs.embeddings).numpy()
    sources = probabilities(outputs.source_logits).numpy()
    labels = [int(label) for known in outputs.knowledge.values() for label in known.labels]
    losses = [-math.log(row[label]) for row, label in zip(sources, labels, strict=True)]
    weighted = weights * losses
    control = -np.cov(weighted, weights)[0, 1] / np.var(weights, ddof=1)
    return -(weighted.mean() + control * weights.mean() - control)


def slow_consensus(outputs: Outputs) -> float:
    pairs = zip(rows(outputs), outputs.consensus.tolist(), strict=True)
    return sum(own.index(max(own)) == other.index(max(other)) for own, other in pairs) / IMAGES


SLOW = {
    "confidence": slow_confidence,
    "information": slow_information,
    "bnm": slow_bnm,
    "snd": slow_snd,
    "heads": slow_heads,
    "moments": slow_moments,
    "dev": slow_dev,
    "consensus": slow_consensus,
    "trust": lambda outputs: (
        slow_information(outputs) / math.log(CLASSES) + slow_consensus(outputs)
    ),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_criterion_equals_a_slow_reference(name: str, outputs: Outputs) -> None:
    assert CRITERIA[name](outputs) == pytest.approx(SLOW[name](outputs), rel=1e-6)


@pytest.mark.parametrize("name", CRITERIA)
def test_larger_is_better(name: str, good: Outputs, bad: Outputs) -> None:
    assert CRITERIA[name](good) > CRITERIA[name](bad)


@pytest.mark.parametrize("name", CRITERIA)
def test_outputs_are_left_as_they_were(name: str, outputs: Outputs) -> None:
    before = {key: value.clone() for key, value in vars(outputs).items() if key != "knowledge"}
    CRITERIA[name](outputs)
    assert all(torch.equal(value, getattr(outputs, key)) for key, value in before.items())


@pytest.mark.parametrize("name", sorted({*CRITERIA} - {"dev"}))
def test_order_of_the_images_does_not_matter(name: str, outputs: Outputs) -> None:
    turned = replace(
        outputs,
        logits=outputs.logits.flip(1),
        embeddings=outputs.embeddings.flip(0),
        consensus=outputs.consensus.flip(0),
    )
    assert CRITERIA[name](turned) == pytest.approx(CRITERIA[name](outputs), abs=1e-9)


def test_nuclear_norm_is_one_where_predictions_are_certain_and_balanced(good: Outputs) -> None:
    certain = replace(good, logits=sure_of(torch.arange(IMAGES) % CLASSES, by=200))
    assert CRITERIA["bnm"](certain) == pytest.approx(1)
    one_class = replace(good, logits=sure_of(torch.zeros(IMAGES, dtype=torch.long), by=200))
    assert CRITERIA["bnm"](one_class) == pytest.approx(1 / math.sqrt(CLASSES))


def test_density_is_of_all_images_alike_or_of_those_of_the_same_class(good: Outputs) -> None:
    alike = replace(good, logits=torch.zeros(2, IMAGES, CLASSES))
    assert CRITERIA["snd"](alike) == pytest.approx(math.log(IMAGES - 1))
    apart = replace(good, logits=sure_of(torch.arange(IMAGES) % CLASSES, by=200))
    assert CRITERIA["snd"](apart) == pytest.approx(math.log(IMAGES / CLASSES - 1), abs=1e-4)


def test_density_ratio_is_that_of_two_normals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "REGULARIZATION", 10.0)  # hardly any
    source, target = random(4000, 1), random(2000, 1, seed=1) + 1
    expected = (source[:, 0] - 0.5).exp()  # of N(1, 1) over N(0, 1)
    found = density_ratio(source, target)
    near = source[:, 0].abs() < 2
    torch.testing.assert_close(found[near], expected[near], rtol=0.2, atol=0)
    assert found.mean().item() == pytest.approx(1, abs=0.1)


def test_risk_is_that_of_the_sources_where_the_target_lies_everywhere(outputs: Outputs) -> None:
    """Ratios that are all one leave the mean loss, and nothing to control."""
    nothing = {name: replace(known, embeddings=torch.zeros(REMEMBERED, FEATURES))
               for name, known in outputs.knowledge.items()}  # fmt: skip
    same = replace(outputs, embeddings=torch.zeros(IMAGES, FEATURES), knowledge=nothing)
    labels = torch.cat([known.labels for known in nothing.values()])
    log_right = probabilities(outputs.source_logits).log()[torch.arange(len(labels)), labels]
    assert CRITERIA["dev"](same) == pytest.approx(log_right.mean().item(), rel=1e-2)


def test_consensus_is_the_mean_prediction_of_the_voters(outputs: Outputs) -> None:
    other = replace(outputs, logits=random(2, IMAGES, CLASSES, seed=9))
    expected = (outputs.prediction + 3 * other.prediction) / 4
    found = compared([outputs, other], [outputs, other, other, other])
    for own, before in zip(found, (outputs, other), strict=True):
        torch.testing.assert_close(own.consensus, expected)
        assert own.logits is before.logits


def test_observed_logits_are_those_of_predictions(backbone: Backbone, make_pixels) -> None:
    images, domain = make_pixels(300), backbone.network.domains["left"]  # more than one batch
    found = observe(backbone, domain, images)
    expected = predict_logits(backbone.network, domain, images)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.consensus, probabilities(found.logits))
    logits = backbone.network.classify(found.embeddings, domain)
    torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-5)


def test_what_is_known_of_the_sources_is_the_same_for_every_candidate(
    backbone: Backbone, make_pixels
) -> None:
    """Whichever xi and statistics it has, as its heads are the backbone's."""
    there, here = (
        observe(backbone, backbone.network.domains[name], make_pixels(10))
        for name in ("left", "right")
    )
    assert not torch.equal(there.embeddings, here.embeddings)
    assert torch.equal(there.source_logits, here.source_logits)
    remembered = source_embeddings(backbone.knowledge)
    expected = torch.stack([head(remembered) for head in backbone.network.heads])
    torch.testing.assert_close(there.source_logits, expected)


def test_every_criterion_is_a_finite_number_on_two_images(backbone: Backbone, make_pixels) -> None:
    found = observe(backbone, backbone.network.domains["left"], make_pixels(2))
    assert all(math.isfinite(criterion(found)) for criterion in CRITERIA.values())


def test_one_image_is_refused(backbone: Backbone, make_pixels) -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        observe(backbone, backbone.network.domains["left"], make_pixels(1))
