"""Losses and pseudo-labels of TENT, SHOT and the consensus, computed again by hand."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapters import Consensus, Shot, Strategy, Tent, adapt
from adapters.config import AdaptConfig
from adapters.loop import learn
from adapters.parts import unlock
from adapters.prepare import prepare
from adapters.strategies.contract import AdaptationTask, begun
from adapters.strategies.shot import pseudo_labels
from da_compose import Backbone
from da_compose.images import to_pixels
from da_compose.starts import MEAN, make_start

RATE = 0.5


def begin(
    backbone: Backbone, images: Any, strategy: Strategy, trains: str = "batch_norm"
) -> tuple[AdaptationTask, Strategy]:
    """A strategy on a task whose optimizer goes `RATE` times the gradient."""
    target = make_start(backbone, MEAN, "target", images).target
    trained = unlock(backbone.network, target, trains)
    optimizer = torch.optim.SGD(trained, lr=RATE)
    generator = torch.Generator().manual_seed(0)
    task = AdaptationTask(backbone, target, trained, optimizer, len(images), generator)
    return task, begun(strategy, task)


def predict(task: AdaptationTask, images: Any) -> tuple[Tensor, Tensor]:
    """Embeddings (B, F) and probabilities (B, N), the mean of both heads' softmaxes."""
    network, target = task.backbone.network, task.target
    _, embedding = network.features(to_pixels(images), target)
    first, second = (head(embedding).softmax(dim=1) for head in network.heads)
    return embedding, (first + second) / 2


def nearest_centroids(embeddings: Tensor, predictions: Tensor) -> Tensor:
    """Section 3 of SHOT in loops: two rounds of centroids, the smaller distance 1 - cosine."""
    weights = predictions.double()
    labels: list[int] = []
    for _ in range(2):
        centroids = {}
        for number in range(weights.shape[1]):
            if weights[:, number].sum() > 0:
                centroids[number] = np.average(embeddings, axis=0, weights=weights[:, number])
        labels = []
        for one in embeddings.numpy():
            distances = {
                number: 1 - one @ centroid / np.linalg.norm(one) / np.linalg.norm(centroid)
                for number, centroid in centroids.items()
            }
            labels.append(min(distances, key=lambda number: distances[number]))
        weights = functional.one_hot(torch.tensor(labels), weights.shape[1]).double()
    return torch.tensor(labels)


@pytest.mark.parametrize("trains", ["mixture_weights", "input_adapter", "batch_norm"])
def test_tent_descends_the_mean_entropy(backbone: Backbone, make_pixels, trains: str):
    images = make_pixels(7)
    task, made = begin(backbone, images, Tent(), trains)
    _, prediction = predict(task, images)
    expected = -(prediction * prediction.log()).sum() / 7
    gradients = torch.autograd.grad(expected, list(task.trained))
    start = [value.detach().clone() for value in task.trained]
    figures = made.step(to_pixels(images))
    torch.testing.assert_close(figures["entropy"], expected.detach())
    for value, before, gradient in zip(task.trained, start, gradients, strict=True):
        torch.testing.assert_close(value.detach(), before - RATE * gradient)


def test_shot_descends_information_of_equal_classes_and_pseudo_labels(backbone, make_pixels):
    images = make_pixels(12)
    task, made = begin(backbone, images, Shot(weight=0.7))
    embedding, prediction = predict(task, images)
    labels = nearest_centroids(embedding.detach(), prediction.detach())
    mean = prediction.mean(dim=0)
    gain = (prediction * prediction.log()).sum() / 12 - (mean * mean.log()).sum()
    wrong = -prediction[torch.arange(12), labels].log().mean()
    gradients = torch.autograd.grad(0.7 * wrong - gain, list(task.trained))
    start = [value.detach().clone() for value in task.trained]
    figures = made.step(to_pixels(images))
    torch.testing.assert_close(figures["information"], gain.detach())
    torch.testing.assert_close(figures["pseudo_label_loss"], wrong.detach())
    for value, before, gradient in zip(task.trained, start, gradients, strict=True):
        torch.testing.assert_close(value.detach(), before - RATE * gradient)


@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_consensus_descends_information_and_the_distance_to_its_teacher(
    backbone: Backbone, make_pixels, weight: float
):
    images = make_pixels(9)
    task, made = begin(backbone, images, Consensus(weight), "mixture_weights")
    _, prediction = predict(task, images)
    teacher = torch.rand(prediction.shape, generator=torch.Generator().manual_seed(3))
    teacher = teacher / teacher.sum(dim=1, keepdim=True)
    mean = prediction.mean(dim=0)
    gain = (prediction * prediction.log()).sum() / 9 - (mean * mean.log()).sum()
    apart = -(teacher * prediction.log()).sum() / 9
    gradients = torch.autograd.grad(weight * apart - gain, list(task.trained))
    start = [value.detach().clone() for value in task.trained]
    figures = cast(Any, made).step(to_pixels(images), teacher)
    torch.testing.assert_close(figures["loss"], (weight * apart - gain).detach())
    for value, before, gradient in zip(task.trained, start, gradients, strict=True):
        torch.testing.assert_close(value.detach(), before - RATE * gradient)


def test_a_strategy_that_is_taught_is_given_each_image_with_its_consensus(backbone, make_pixels):
    seen = []

    class Taught:
        TAUGHT = True

        def prepare(self, task: AdaptationTask) -> None:
            self.task = task

        def step(self, images: Tensor, consensus: Tensor | None = None) -> dict[str, Tensor]:
            seen.append((images, consensus))
            self.task.descend(torch.stack([value.sum() for value in self.task.trained]).sum())
            return {}

    ready = prepare(backbone, make_pixels(80), "target", AdaptConfig(steps=4))
    learn(ready, Taught())
    assert len(ready.consensus) == 80
    torch.testing.assert_close(ready.consensus.sum(dim=1), torch.ones(80))
    of_image = {
        tuple(image.flatten().tolist()): row
        for image, row in zip(to_pixels(ready.checked), ready.consensus, strict=True)
    }
    for images, consensus in seen:
        for image, row in zip(images, consensus, strict=True):
            assert torch.equal(of_image[tuple(image.flatten().tolist())], row)


def test_centroids_are_of_what_the_last_steps_saw(backbone: Backbone, make_pixels):
    batches = [make_pixels(6, seed=seed) for seed in range(3)]
    task, made = begin(backbone, batches[0], Shot(memory=12))
    seen, figures = [], {}
    for images in batches:
        seen.append([value.detach() for value in predict(task, images)])
        figures = made.step(to_pixels(images))
    embeddings, predictions = (torch.cat(values) for values in zip(*seen[1:], strict=True))
    labels = nearest_centroids(embeddings, predictions)[6:]
    wrong = -predictions[6:][torch.arange(6), labels].log().mean()
    torch.testing.assert_close(figures["pseudo_label_loss"], wrong)


@pytest.mark.parametrize("seed", range(5))
def test_pseudo_labels_are_of_the_nearest_centroid(seed: int):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(20, 4, generator=generator)
    predictions = torch.randn(20, 5, generator=generator).mul(2).softmax(dim=1)
    found = pseudo_labels(embeddings, predictions)
    assert torch.equal(found, nearest_centroids(embeddings, predictions))
    empty = [torch.cat([values.new_zeros(9, values.shape[1]), values])
             for values in (embeddings, predictions)]  # fmt: skip
    assert torch.equal(pseudo_labels(*empty)[9:], found)


def test_a_class_without_images_gets_none():
    """The third class is predicted of nobody, and is nearer than what points the other way."""
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, -1.0]])
    predictions = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0]])
    assert pseudo_labels(embeddings, predictions).tolist() == [0, 0, 1]


def test_pseudo_labels_correct_a_classifier_by_where_images_lie():
    """Two groups; one of the second is predicted as the first."""
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.1, 1.0]])
    predictions = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.6, 0.4]])
    assert pseudo_labels(embeddings, predictions).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("strategy", "figure"), [("tent", "entropy"), ("shot", "pseudo_label_loss")]
)
def test_gamma_and_beta_are_adapted(backbone: Backbone, make_pixels, strategy: str, figure: str):
    options: dict[str, Any] = {"steps": 30, "batch_size": 30, "guard": False, "learning_rate": 0.02}
    found = adapt(backbone, make_pixels(30), strategy, trains="batch_norm", **options)
    assert found.last is not None and found.last.gamma is not None
    assert found.learned_parameters == 2 * backbone.network.config.num_statistics
    assert found.history[-1][figure] < found.history[0][figure]


@pytest.mark.parametrize("options", [{"weight": 0.0}, {"weight": float("nan")}, {"memory": 0}])
def test_wrong_options_of_shot_are_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be above 0"):
        Shot(**options)
