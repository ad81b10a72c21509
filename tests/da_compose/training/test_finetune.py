"""Fine-tuning: steps are functions of their number, what is frozen stays, a call resumes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from da_compose import Backbone, PretrainedRecipe, pretrain
from da_compose.images import ImageSet, to_pixels
from da_compose.model.domain import POOLED
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.statistics import estimate_statistics
from da_compose.storage import backbone as backbone_file
from da_compose.training import pretrained
from da_compose.training.directions import DirectionsConfig
from da_compose.training.finetune import FinetuneConfig, Finetuner
from da_compose.training.picture_batches import crop_and_colour
from da_compose.training.run import STATE, run
from tests.tiny_modules import CLASSES, KINDS, SIZE, tiny_module

SHORT = FinetuneConfig(steps=4, head_steps=1, batch_size=8, chunks=2, frozen=0.4)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def sources(make_images) -> dict[str, ImageSet]:
    return {name: make_images(24, seed, SIZE, colour=seed == 0) for seed, name in enumerate("ab")}


def network(kind: str = "conv") -> PretrainedNetwork:
    return PretrainedNetwork.of(tiny_module(kind), num_classes=CLASSES, image_size=SIZE)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_batch_is_a_function_of_its_step_and_equal_of_all_sources(sources):
    trainer = Finetuner(network(), sources, SHORT)
    pixels, labels = trainer.batch(3)
    trainer.step()
    again, again_labels = trainer.batch(3)
    assert torch.equal(pixels, again)
    assert torch.equal(labels, again_labels)
    assert pixels.shape == (8, 3, 6, 6)  # 0.8 of SIZE
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert not torch.equal(trainer.batch(4)[0], pixels)


def test_crops_that_train_are_smaller_than_what_the_network_takes_afterwards(sources):
    net = network()
    trainer = Finetuner(net, sources, replace(SHORT, crop_size=0.5))
    assert trainer.batch(0)[0].shape[2:] == (4, 4)
    trainer.step()
    trainer.finish()
    assert net.config.image_size == SIZE
    with pytest.raises(ValueError, match=f"must have shape \\(batch, 3, {SIZE}, {SIZE}\\)"):
        net(torch.rand(1, 3, 4, 4), net.domains["a"])
    assert net(torch.rand(1, 3, SIZE, SIZE), net.domains["a"]).shape == (2, 1, CLASSES)


def test_a_network_of_one_size_trains_on_that(sources):
    of_one_size = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Flatten(), nn.Linear(96, 5))
    module = nn.Sequential(nn.Identity(), of_one_size, nn.Linear(5, 2))
    net = PretrainedNetwork.of(module, num_classes=CLASSES, image_size=SIZE, blocks=["1"])
    assert not net.takes(6)
    assert Finetuner(net, sources, SHORT).batch(0)[0].shape[2:] == (SIZE, SIZE)


@every_kind
def test_only_heads_move_first_then_all_but_the_stem_and_first_blocks(kind: str, sources):
    net = network(kind)
    trainer = Finetuner(net, sources, SHORT)
    before = state(net)
    trainer.step()

    def moved() -> set[str]:
        own = {name for name, _ in net.named_parameters() if not name.startswith("domains.")}
        return {name for name in own if not torch.equal(state(net)[name], before[name])}

    assert {name.split(".")[0] for name in moved()} == {"heads"}
    for _ in range(3):
        trainer.step()
    parts = {name for name in moved() if name.startswith("body.")}
    assert parts
    assert not any(name.startswith("body.blocks.0.") for name in parts)
    assert not any(name.startswith("input_adapter.") for name in moved())
    assert any(name.startswith("output_adapter.") for name in moved())


def test_it_learns(sources):
    config = replace(SHORT, steps=60, learning_rate=5e-3, style_share=0.2, frozen=0, batch_size=24)
    trainer = Finetuner(network(), sources, config)
    accuracies = [trainer.step()["accuracy"] for _ in range(60)]
    assert sum(accuracies[-10:]) > sum(accuracies[:10]) + 100


def test_statistics_in_the_end_are_those_of_plain_pictures(sources):
    net = network()
    trainer = Finetuner(net, sources, SHORT)
    trainer.step()
    trainer.finish()
    assert net.domains.names == ("a", "b", POOLED)
    domain = net.domains["a"]
    whole = to_pixels(sources["a"].images)
    mean, var = estimate_statistics(net, domain, [whole])
    torch.testing.assert_close(domain.mean, mean)
    torch.testing.assert_close(domain.var, var)
    new, pooled = net.new_domain("new"), net.domains[POOLED]
    assert torch.equal(new.mean, pooled.mean)
    assert torch.equal(new.var, pooled.var)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not any(domain.batch_statistics for domain in net.domains)


@every_kind
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(kind: str, tmp_path: Path, sources):
    whole = Finetuner(network(kind), sources, SHORT)
    run(whole, tmp_path / "whole")
    first = Finetuner(network(kind), sources, SHORT)
    taken = first.step

    def broken() -> dict[str, float]:
        if first.step_number == 3:
            raise KeyboardInterrupt
        return taken()

    first.step = broken
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "part", save_every=2)
    rest = Finetuner(network(kind), sources, SHORT)
    run(rest, tmp_path / "part")
    assert same(state(rest.network), state(whole.network))


@pytest.mark.parametrize("templates", [True, False])
def test_pretrain_makes_a_backbone_on_published_weights(
    templates: bool, tmp_path: Path, monkeypatch, sources
):
    def published(name: str, **options: object) -> PretrainedNetwork:
        return PretrainedNetwork.of(tiny_module("conv"), name=name, num_classes=3, image_size=SIZE)

    monkeypatch.setattr(pretrained, "pretrained_network", published)
    monkeypatch.setattr(backbone_file, "build_module", lambda name, size: tiny_module("conv", 9))
    learned = DirectionsConfig(templates=2, mock_domains=2, pictures=12, steps=2, batch_size=6)
    recipe = PretrainedRecipe(
        network="timm:conv",
        image_size=SIZE,
        finetuning=SHORT,
        directions=learned if templates else None,
    )
    given = {name: (data.images, data.labels) for name, data in sources.items()}
    held: list[int] = []

    def rehearse(backbone: Backbone, held_out: dict[str, ImageSet]) -> Backbone:
        held.append(sum(map(len, held_out.values())))
        return backbone

    monkeypatch.setattr(pretrained, "rehearse", rehearse)
    found = pretrain(given, out=tmp_path, recipe=recipe, device="cpu", show_progress=False)
    assert held == [0] and found.notes["held_out"] == 0  # its sources can be compared
    assert found.network.config.num_templates == (2 if templates else 0)
    assert found.network.domains.names == ("a", "b", POOLED)
    assert found.class_names == ("0", "1", "2")
    assert set(found.knowledge) == {"a", "b"}
    assert found.notes["weights"] == "unknown"
    assert ("templates" in found.notes) == templates
    assert not (tmp_path / STATE).exists()
    assert not (tmp_path / pretrained.MOCK_DOMAINS).exists()
    again = pretrain(given, out=tmp_path, recipe=recipe, device="cpu", show_progress=False)
    assert again.fingerprint == found.fingerprint
    one = {"a": tuple(np.concatenate([part] * 4) for part in given["a"])}
    alone = pretrain(one, out=tmp_path / "one", recipe=recipe, device="cpu", show_progress=False)
    assert alone.notes["held_out"] == 0.1
    assert held[1] == sum(np.bincount(one["a"][1]) // 10) > 0


def test_crops_are_functions_of_pixels_and_generator():
    pixels = torch.rand(5, 3, 16, 16)
    found = [crop_and_colour(pixels, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert found[0].shape == pixels.shape
    assert found[0].min() >= 0
    assert found[0].max() <= 1


def test_what_cannot_be_trained_is_refused(sources):
    with pytest.raises(ValueError, match="none of them named 'pooled'"):
        Finetuner(network(), {POOLED: sources["a"]}, SHORT)
    with pytest.raises(ValueError, match="has no picture of each of 9 sources"):
        Finetuner(network(), {f"{n}": sources["a"] for n in range(9)}, SHORT)
    with pytest.raises(ValueError, match="frozen must be from 0 to 1, got 2"):
        FinetuneConfig(frozen=2)
    with pytest.raises(ValueError, match="crop_size must be above 0 and at most 1, got 0"):
        FinetuneConfig(crop_size=0)
