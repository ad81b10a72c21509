from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from torch import Tensor

from benchmarks.speed import budgets, peers
from benchmarks.speed.budgets import Material, Rival, compare_budgets, some_of, until
from benchmarks.speed.pictures import Pictures
from benchmarks.speed.plain import Batch
from da_compose import Domain, Network
from da_compose.images import ImageSet

TINY = Pictures(name="timm:lcnet_035", size=32, count=14, batch=4, repeats=1)


def idle(network: Network, domain: Domain, rate: float) -> dict[str, peers.Peer]:
    """A peer whose steps do nothing."""

    def step(source: Batch, target: Tensor) -> None:
        assert len(source[0]) == len(source[1]) == len(target)

    return {"adversarial": peers.Peer(step, network, domain)}


@pytest.fixture(scope="module")
def material() -> Material:
    labels = np.arange(TINY.count) % 7
    sources = {f"source-{number}": ImageSet(TINY.images(number), labels) for number in (1, 2, 3)}
    target = ImageSet(TINY.images(4), labels)
    return Material(TINY.backbone, sources, target, target)


def test_all_rivals_step_and_their_times_stand_beside_ours(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "BATCH", 4)
    monkeypatch.setattr(peers, "PEERS", {"pytest": idle, "not-installed": idle})
    rows = {row.name: row for row in compare_budgets(material, read_every=1, steps=1)}
    loops = ("TENT", "SHOT", "adversarial/published", "moment_matching/published")
    assert list(rows) == [f"budgets/{name}" for name in (*loops, "adversarial/pytest")]
    assert all(row.ours > 0 and row.other > 0 for row in rows.values())
    assert all("chosen_start" in row.against for row in rows.values())


@pytest.mark.parametrize("way", ["tent", "shot"])
def test_what_a_rival_trains_moves_and_the_backbone_stays(
    material: Material, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "BATCH", 4)
    kept = material.backbone.fingerprint
    rival: Rival = getattr(material, way)()
    before = [value.clone() for value in rival.network.parameters()]
    gamma = None if rival.domain.gamma is None else rival.domain.gamma.clone()
    rival.advance(0)
    moved = any(
        not old.equal(new) for old, new in zip(before, rival.network.parameters(), strict=True)
    )
    assert moved == (way == "shot")
    if gamma is not None:
        assert rival.domain.gamma is not None and not gamma.equal(rival.domain.gamma)
    assert material.backbone.fingerprint == kept


@pytest.mark.parametrize("way", ["tent", "shot", "published"])
def test_a_rival_goes_on_training_after_its_accuracy_was_read(
    material: Material, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "BATCH", 4)
    rival: Rival = (
        material.published("adversarial") if way == "published" else getattr(material, way)()
    )
    parts = rival.domain if way == "tent" else rival.network
    rival.advance(0)
    material.accuracy_of(rival.network, rival.domain)
    before = [value.clone() for value in parts.parameters()]
    rival.advance(1)
    assert any(not old.equal(new) for old, new in zip(before, parts.parameters(), strict=True))


def test_a_rival_ends_once_it_is_as_accurate_and_at_its_budget_at_last(material: Material) -> None:
    taken: list[int] = []
    accuracies: Iterator[float] = iter((10.0, 30.0, 20.0, 50.0))
    read = cast(Any, replace(material))
    object.__setattr__(read, "accuracy_of", lambda network, domain: next(accuracies))
    rival = Rival("one", "", 9, taken.append, TINY.backbone.network, cast(Any, None))
    _, found = until(read, rival, 30.0, 9, 2)
    assert (found, taken) == ([10.0, 30.0], [0, 1, 2, 3])
    _, found = until(read, rival, 99.0, 3, 2)
    assert (found, taken[4:]) == ([20.0, 50.0], [0, 1, 2])


def test_some_pictures_keep_their_labels() -> None:
    images = ImageSet(np.arange(10, dtype=np.uint8).reshape(10, 1, 1), np.arange(10))
    some = some_of(images, 4)
    assert len(some) == 4
    assert np.array_equal(some.images[:, 0, 0], some.labels)
    assert len(some_of(images, 20)) == 10
