from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from da_compose.images import ImageSet, to_pixels
from da_compose.model.domain import POOLED
from da_compose.statistics import estimate_statistics
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.sampling import Sampler, hold_out, seeded
from da_compose.training.trainer import PretrainConfig, Pretrainer, one_cycle

STILL = AugmentationConfig(log_scale=0, log_aspect=0, rotation=0, shear=0, shift=0)


def numbered(count: int, size: int = 8) -> ImageSet:
    """Image i has all pixels i, and label i % 3."""
    images = np.broadcast_to(np.arange(count)[:, None, None], (count, size, size))
    return ImageSet(images.astype(np.uint8), np.arange(count, dtype=np.int64) % 3)


def numbers_in(pixels: Tensor) -> list[int]:
    return (255 * pixels[:, 0, 0, 0]).round().int().tolist()


def test_loss_falls_on_a_separable_problem(make_network, make_images) -> None:
    sources = {"a": make_images(30), "b": make_images(30, seed=1)}
    network = make_network(domains=())
    config = PretrainConfig(steps=40, batch_size=12, learning_rate=0.03, statistics_batches=5)
    trainer = Pretrainer(network, sources, config)
    figures = [trainer.step() for _ in range(40)]
    trainer.finish()
    assert sum(f["loss"] for f in figures[-5:]) < 0.5 * sum(f["loss"] for f in figures[:5])
    test = make_images(30, seed=9)
    predicted = network(to_pixels(test.images), network.domains["a"]).sum(0).argmax(-1)
    assert float((predicted.numpy() == test.labels).mean()) > 0.8


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (10, 4), (3, 8), (1, 4), (5, 5)])
def test_sampler_visits_every_image_once_an_epoch(count: int, batch_size: int) -> None:
    sampler = Sampler(numbered(count), batch_size, seed=0)
    visited = []
    while len(visited) < 12 * count or len(visited) % count:
        pixels, labels = sampler.batch(len(visited) // batch_size)
        assert [n % 3 for n in numbers_in(pixels)] == labels.tolist()
        visited += numbers_in(pixels)
    for start in range(0, len(visited), count):
        assert sorted(visited[start : start + count]) == list(range(count))


def test_epochs_are_permuted_anew_and_by_the_seed() -> None:
    first, other = (Sampler(numbered(20), 20, seed) for seed in (0, 1))
    orders = [tuple(numbers_in(sampler.batch(step)[0])) for sampler in (first, other)
              for step in range(3)]  # fmt: skip
    assert len(set(orders)) == 6


def test_batch_depends_on_the_step_alone() -> None:
    in_order, backwards = Sampler(numbered(7), 4, 0), Sampler(numbered(7), 4, 0)
    batches = [in_order.batch(step)[0] for step in range(9)]
    for step in reversed(range(9)):
        assert backwards.batch(step)[0].equal(batches[step])


def test_generators_differ_by_any_number_and_by_order() -> None:
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (1, 2, 3), (3, 2, 1)]
    draws = {torch.rand(1, generator=seeded(*key)).item() for key in keys}
    assert len(draws) == len(keys)


def test_what_is_held_out_of_each_source_is_in_its_training_share_no_more() -> None:
    def numbered(count: int, classes: int) -> ImageSet:  # image n is n everywhere
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
        return ImageSet(images, np.arange(count) % classes)

    def numbers(data: ImageSet) -> list[int]:
        return data.images[:, 0, 0].tolist()

    sources = {"many": numbered(50, 2), "few": numbered(27, 3)}
    train, held = hold_out(sources, 0.1, seed=0)
    assert (len(train["many"]), len(held["many"])) == (46, 4)
    assert np.bincount(held["many"].labels).tolist() == [2, 2]  # a tenth of each class
    assert train["few"].fingerprint == sources["few"].fingerprint
    assert "few" not in held  # of 9 images of a class a tenth is none
    assert sorted([*numbers(train["many"]), *numbers(held["many"])]) == [*range(50)]
    assert [n % 2 for n in numbers(held["many"])] == held["many"].labels.tolist()
    assert numbers(hold_out(sources, 0.1, seed=1)[1]["many"]) != numbers(held["many"])


def test_unequal_sources_give_batches_of_equal_size(make_network) -> None:
    trainer = Pretrainer(
        make_network(domains=()),
        {"large": numbered(50), "small": numbered(3)},
        PretrainConfig(steps=3, batch_size=8),
    )
    assert {len(trainer.domain_batch(name, 0)[1]) for name in ("large", "small")} == {8}
    assert trainer.step()["images"] == 16


def test_pooled_batches_hold_an_equal_share_of_every_source(make_network) -> None:
    def constant(value: int) -> ImageSet:
        return ImageSet(np.full((20, 8, 8), value, np.uint8), np.full(20, value % 3))

    sources = {"a": constant(0), "b": constant(100), "c": constant(200)}
    config = PretrainConfig(batch_size=12, pooled=True)
    trainer = Pretrainer(make_network(domains=()), sources, config)
    inputs, labels = trainer.domain_batch(POOLED, 0)
    drawn = Counter((255 * inputs[:, 0, 0, 0]).round().int().tolist())
    assert drawn == {0: 4, 100: 4, 200: 4}
    assert Counter(labels.tolist()) == {0: 4, 1: 4, 2: 4}
    assert trainer.network.domains.names == ("a", "b", "c", POOLED)
    assert trainer.step()["images"] == 4 * 12


def test_a_source_may_be_named_as_the_pooled_domain_where_there_is_none(make_network) -> None:
    sources = {POOLED: numbered(8), "other": numbered(8)}
    trainer = Pretrainer(make_network(domains=()), sources, PretrainConfig(batch_size=4))
    assert trainer.members(POOLED) == ([POOLED], 4)


def test_more_sources_than_images_a_batch_still_pool_all(make_network) -> None:
    sources = {name: numbered(4) for name in "abc"}
    trainer = Pretrainer(
        make_network(domains=()), sources, PretrainConfig(batch_size=2, pooled=True)
    )
    assert len(trainer.domain_batch(POOLED, 0)[1]) == 3


def test_grey_and_colour_sources_train_together(make_network, make_images) -> None:
    sources = {"grey": make_images(6), "colour": make_images(6, colour=True)}
    config = PretrainConfig(steps=2, batch_size=4, pooled=True)
    assert Pretrainer(make_network(domains=()), sources, config).step()["images"] == 12


def test_augmentation_of_zero_ranges_changes_nothing(make_network, make_images) -> None:
    batches = []
    for augmentation in (None, STILL):
        config = PretrainConfig(batch_size=6, augmentation=augmentation)
        trainer = Pretrainer(make_network(domains=()), {"a": make_images(9)}, config)
        batches.append(trainer.domain_batch("a", 1))
    torch.testing.assert_close(batches[0][0], batches[1][0], rtol=0, atol=1e-5)
    assert batches[0][1].equal(batches[1][1])


def test_augmented_batch_depends_on_step_domain_and_seed(make_network, make_images) -> None:
    def batch(name: str, step: int, seed: int = 0) -> Tensor:
        sources = {"a": make_images(1), "b": make_images(1)}  # the same single image
        config = PretrainConfig(batch_size=2, augmentation=AugmentationConfig(), seed=seed)
        return Pretrainer(make_network(domains=()), sources, config).domain_batch(name, step)[0]

    assert batch("a", 3).equal(batch("a", 3))
    for other in (batch("b", 3), batch("a", 4), batch("a", 3, seed=1)):
        assert not batch("a", 3).equal(other)


def test_gradient_is_that_of_the_mean_cross_entropy_of_domains_and_heads(
    make_network, make_images
) -> None:
    network = make_network(domains=())
    sources = {"a": make_images(6), "b": make_images(6, seed=1)}
    trainer = Pretrainer(network, sources, PretrainConfig(batch_size=6, clip=1e9))
    losses = []
    for name in sources:
        inputs, labels = trainer.domain_batch(name, 0)
        for head in network(inputs, network.domains[name].use_batch_statistics()):
            losses.append(-head.log_softmax(dim=1)[range(6), labels].mean())
    loss = torch.stack(losses).mean()
    expected = torch.autograd.grad(loss, list(network.parameters()))
    assert trainer.step()["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_gradient_norm_is_clipped(make_network, make_images) -> None:
    network = make_network(domains=())
    Pretrainer(network, {"a": make_images(6)}, PretrainConfig(batch_size=6, clip=0.01)).step()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    assert float(torch.cat(gradients).norm()) == pytest.approx(0.01, rel=1e-3)


def test_gradients_do_not_depend_on_the_order_of_the_sources(make_network, make_images) -> None:
    """Batches are whole domains here, so that both orders draw the same images."""
    sources = {name: make_images(6, seed=seed) for seed, name in enumerate("abc")}
    gradients = []
    for names in ("abc", "cab"):
        network = make_network(domains="abc").double()
        config = PretrainConfig(batch_size=6, clip=1e9)
        trainer = Pretrainer(network, {name: sources[name] for name in names}, config)
        batch = trainer.domain_batch
        trainer.domain_batch = lambda name, step, batch=batch: (
            batch(name, step)[0].double(),
            batch(name, step)[1],
        )
        trainer.step()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_finish_stores_estimates_under_the_final_weights(make_network, make_images) -> None:
    network = make_network(domains=())
    sources = {"a": make_images(9), "b": make_images(7, seed=1)}
    config = PretrainConfig(steps=2, batch_size=4, statistics_batches=3, pooled=True)
    trainer = Pretrainer(network, sources, config)
    trainer.step()
    trainer.finish()
    for name in ("a", "b", POOLED):
        domain = network.domains[name]
        batches = [trainer.domain_batch(name, step)[0] for step in range(3)]
        mean, var = estimate_statistics(network, domain, batches)
        assert domain.mean.equal(mean)
        assert domain.var.equal(var)
        assert not domain.batch_statistics


def test_only_kernels_decay_and_xi_learns_faster(make_network, make_images) -> None:
    network = make_network(domains=())
    config = PretrainConfig(learning_rate=0.01, xi_rate=3, weight_decay=0.1)
    trainer = Pretrainer(network, {"a": make_images(6)}, config)
    groups = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(groups) == len(list(network.parameters()))  # each once
    assert groups[id(network.domains["a"].mixture.xi)] == (pytest.approx(0.03), 0)
    assert groups[id(network.templates.expand)] == (0.01, 0.1)
    assert groups[id(network.templates.beta)] == (0.01, 0)


def test_unshared_network_trains_without_xi(make_network, make_images) -> None:
    network = make_network(domains=(), num_templates=3, signature=(0, 1, 2))
    before = network.templates.expand.detach().clone()
    Pretrainer(network, {"a": make_images(6)}, PretrainConfig(batch_size=4)).step()
    assert not network.templates.expand.equal(before)


def test_schedule_warms_up_and_falls_to_nearly_zero() -> None:
    rates = [one_cycle(step / 100) for step in range(101)]
    assert max(rates) == pytest.approx(1) == rates[20]
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_no_sources_are_refused(make_network) -> None:
    with pytest.raises(ValueError, match="at least one labelled source"):
        Pretrainer(make_network(), {}, PretrainConfig())


def test_source_of_the_pooled_domains_name_is_refused(make_network, make_images) -> None:
    with pytest.raises(ValueError, match="a source is named 'pooled'"):
        Pretrainer(make_network(), {POOLED: make_images(3)}, PretrainConfig(pooled=True))
    Pretrainer(make_network(), {POOLED: make_images(3)}, PretrainConfig())


@pytest.mark.parametrize("wrong", [-100, -1, 3])
def test_labels_that_the_network_has_no_class_for_are_refused(make_network, wrong: int) -> None:
    """-100 would otherwise be ignored silently by cross-entropy."""
    labels = np.array([0, 1, wrong])
    with pytest.raises(ValueError, match=r"labels of a must be in 0\.\.2, got"):
        Pretrainer(
            make_network(), {"a": ImageSet(np.zeros((3, 8, 8), np.uint8), labels)}, PretrainConfig()
        )


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 1}, {"statistics_batches": 0}],
    ids=lambda w: next(iter(w)),
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
        PretrainConfig(**wrong)


def test_bfloat16_learns_about_the_same_and_leaves_weights_in_float32(make_network, make_images):
    losses = {}
    for bfloat16 in (False, True):
        network = make_network(domains=())
        config = PretrainConfig(steps=3, batch_size=8, bfloat16=bfloat16)
        trainer = Pretrainer(network, {"one": make_images(24)}, config)
        losses[bfloat16] = [trainer.step()["loss"] for _ in range(3)]
        trainer.finish()
        assert {
            value.dtype for value in network.state_dict().values() if value.is_floating_point()
        } == {torch.float32}
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)


def test_a_balanced_sampler_shows_every_class_equally_often():
    labels = np.repeat(np.arange(3), [30, 6, 1])
    images = np.zeros((len(labels), 4, 4), dtype=np.uint8)
    data = ImageSet(images, labels.astype(np.int64))
    sampler = Sampler(data, len(labels), seed=0, balanced=True)
    for epoch in range(3):
        counts = sampler.batch(epoch)[1].bincount(minlength=3)
        assert counts.sum() == len(labels)
        assert counts.max() - counts.min() <= 2
    assert not torch.equal(sampler.batch(0)[1], sampler.batch(1)[1])
    assert torch.equal(sampler.batch(0)[1], Sampler(data, 37, 0, balanced=True).batch(0)[1])


def test_a_balanced_sampler_uses_every_image_of_a_large_class():
    labels = np.repeat(np.arange(2), [8, 2]).astype(np.int64)
    images = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    sampler = Sampler(ImageSet(images, labels), 10, seed=0, balanced=True)
    seen = {int(value) for step in range(8) for value in (sampler.batch(step)[0] * 255).unique()}
    assert seen == set(range(10))
