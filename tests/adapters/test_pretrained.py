"""Every strategy, file and stream on ordinary modules, with batch norm and without."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adapters import STRATEGIES, adapt, adapt_many, adapt_with_labels, load_adaptation
from adapters.config import CHOICES, UNLEARNED, AdaptConfig
from adapters.parts import ADAPTED, DIRECTED
from adapters.prepare import prepare
from da_compose import (
    Backbone,
    Domain,
    PretrainedNetwork,
    load_backbone,
    predict_rows,
    probabilities,
)
from da_compose.images import ImageSet, to_pixels
from da_compose.inference import predict_logits
from da_compose.knowledge import collect_knowledge
from da_compose.starts import MEAN, make_start
from da_compose.storage import backbone as backbone_file
from tests.tiny_modules import CLASSES, KINDS, SIZE, tiny_module, tiny_pretrained

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 8, "check_every": 2}
CASES = [
    (kind, part)
    for kind in KINDS
    for part in ADAPTED
    if (kind, part) != ("transformer", "batch_norm")
]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_case = pytest.mark.parametrize(("kind", "trains"), CASES)


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def build(kind: str, num_templates: int = 2) -> Backbone:
    network = tiny_pretrained(kind, num_templates)
    network.config = replace(network.config, name=f"timm:{kind}")
    data = {}
    for number, name in enumerate(("left", "right")):
        domain = network.new_domain(name)
        domain.mean += 0.2 * number
        network.domains.add(domain)
        data[name] = ImageSet(pictures(20, number), np.arange(20) % CLASSES)
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Backbone(network, names, collect_knowledge(network, data))


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {kind: build(kind) for kind in KINDS}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def moved(before: Domain, after: Domain) -> set[str]:
    old, new = state(before), state(after)
    return {name for name in new if name not in old or not torch.equal(new[name], old[name])}


@every_case
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_moves_the_trained_part_alone(backbones, strategy: str, kind: str, trains: str):
    backbone = backbones[kind]
    before = state(backbone.network)
    options: dict[str, Any] = QUICK | {"steps": 30 if strategy == "adversarial" else 3}
    found = adapt(backbone, pictures(30, 5), strategy, trains=trains, guard=False, **options)
    assert same(state(backbone.network), before)
    assert found.last is not None
    start = make_start(backbone, found.notes["start"], "target", pictures(30, 5)).target
    changed = moved(start, found.last) - {"mean", "var"}
    assert changed
    first = {"mixture_weights": {"mixture"}, "batch_norm": {"gamma", "beta"}}
    assert {name.split(".")[0] for name in changed} <= first.get(trains, {"input_adapter"})
    assert all(math.isfinite(value) for entry in found.history[1:] for value in entry.values())
    probabilities = found.predict_proba(pictures(5))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))


@every_kind
@pytest.mark.parametrize("strategy", CHOICES)
def test_every_choice_goes_through(backbones, kind: str, strategy: str):
    found = adapt(backbones[kind], pictures(60, 5), strategy, **QUICK)
    assert (found.learned_parameters == 0) == (strategy in UNLEARNED)


def test_information_rises(backbones):
    found = adapt(
        backbones["conv"], pictures(60, 5), "information_maximization", steps=30, guard=False
    )
    assert found.learned_parameters == 6
    figures = [entry["information"] for entry in found.history]
    assert np.mean(figures[-5:]) > np.mean(figures[:5])


def test_where_no_domain_has_moved_the_plain_starts_blends_are_tried(backbones):
    images, backbone = pictures(60, 5), build("conv")
    source_only, own = (
        adapt(backbone, images, name).predict_proba(images)
        for name in ("source_only", "batch_norm")
    )
    half = make_start(backbone, MEAN, "target", images)
    half.use_statistics(0.5)
    network = backbone.network
    between = probabilities(predict_logits(network, half.target, images))
    ready = prepare(backbone, images, "target", AdaptConfig())
    assert ready.notes["start"] == MEAN
    mean = (source_only + between + own) / 3
    order = [[(image == one).all() for one in images].index(True) for image in ready.checked]
    torch.testing.assert_close(ready.consensus, mean[order])
    network.domains["left"].get_parameter("mixture.xi").fill_(0.5)
    again = prepare(backbone, images, "target", AdaptConfig())
    assert (again.consensus - mean[order]).abs().max() > 1e-4


@every_kind
def test_what_is_usual_is_the_kinds_own(backbones, kind: str):
    found = adapt(backbones[kind], pictures(20, 5))
    assert found.notes["strategy"] == "chosen_start"
    assert not found.history
    assert found.learned_parameters == 0
    found = adapt(backbones[kind], pictures(20, 5), "consensus")
    assert len(found.history) == DIRECTED.steps["mixture_weights"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("steps", 2), ("batch_size", 8), ("learning_rate", 0.1), ("trains", "input_adapter")],
)
def test_what_says_how_to_learn_is_learned_by_the_consensus(backbones, option: str, value: Any):
    said = AdaptConfig(**{option: value}).on(backbones["conv"].network)
    assert said.strategy == "consensus"
    assert AdaptConfig(seed=1).on(backbones["conv"].network).strategy == "chosen_start"


@every_case
def test_an_adaptation_is_loaded_and_exported_as_it_is(
    tmp_path, monkeypatch, backbones, kind: str, trains: str
):
    monkeypatch.setattr(backbone_file, "build_module", lambda name, size: tiny_module(name[5:], 9))
    backbone = backbones[kind]
    found = adapt(backbone, pictures(30, 5), trains=trains, guard=False, **QUICK)
    backbone.save(tmp_path / "backbone")
    found.save(tmp_path / "adapter")
    loaded = load_adaptation(tmp_path / "adapter", load_backbone(tmp_path / "backbone"))
    expected = found.predict_proba(pictures(7))
    assert torch.equal(loaded.predict_proba(pictures(7)), expected)
    with torch.no_grad():
        torch.testing.assert_close(found.model()(to_pixels(pictures(7))), expected)
    assert found.export(tmp_path / "target.pt2") < 1e-5


@every_kind
def test_an_onnx_file_predicts_the_same(tmp_path, backbones, kind: str):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    found = adapt(backbones[kind], pictures(30, 5), **QUICK)
    assert found.export(tmp_path / "target.onnx") < 1e-5


@every_kind
@pytest.mark.parametrize("together", [True, False])
def test_many_targets_are_adapted_as_each_alone(backbones, kind: str, together: bool):
    backbone, targets = backbones[kind], {"one": pictures(15, 1), "two": pictures(12, 2)}
    found = adapt_many(backbone, targets, together=together, **QUICK)
    for name, images in targets.items():
        alone = adapt(backbone, images, name=name, **QUICK)
        torch.testing.assert_close(found[name].domain.state_dict(), alone.domain.state_dict())


@every_kind
def test_a_stream_is_followed(backbones, kind: str):
    found = adapt(backbones[kind], pictures(30, 5), **QUICK)
    update = found.update(pictures(40, 6), chunk=8, least_diversity=0.0)
    assert update.moves + update.refused == 5
    assert math.isfinite(update.statistics_drift)


@every_kind
def test_labels_may_help(backbones, kind: str):
    labelled = pictures(6, 7), np.arange(6) % CLASSES
    found = adapt_with_labels(backbones[kind], pictures(30, 5), labelled, **QUICK)
    assert found.notes["labels"] == 6


def test_rows_of_adapted_domains_are_predicted_together(backbones):
    backbone = build("conv")
    for name in ("one", "two"):
        backbone.network.domains.add(adapt(backbone, pictures(20, 5), name=name, **QUICK).domain)
    found = predict_rows(backbone.network, to_pixels(pictures(3)), ["one", "two", "one"])
    assert found.shape == (3, CLASSES)


def test_without_templates_batch_norm_and_input_adapter_are_trained():
    backbone = build("conv", num_templates=0)
    for trains in ("input_adapter", "batch_norm"):
        assert adapt(backbone, pictures(20, 5), trains=trains, **QUICK).learned_parameters
    with pytest.raises(ValueError, match="no templates yet, so no mixture weights to train"):
        adapt(backbone, pictures(20, 5), **QUICK)


def test_without_batch_norm_none_is_trained(backbones):
    with pytest.raises(ValueError, match="this network has no batch norm; train mixture_weights"):
        adapt(backbones["transformer"], pictures(20, 5), trains="batch_norm", **QUICK)


def test_adapting_is_reproducible(backbones):
    assert isinstance(backbones["conv"].network, PretrainedNetwork)
    found = [adapt(backbones["conv"], pictures(30, 5), seed=3, **QUICK) for _ in range(2)]
    assert same(state(found[0].domain), state(found[1].domain))
    assert MEAN not in backbones["conv"].network.domains
