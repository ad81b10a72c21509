from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from adapters import adapt
from adapters.config import AdaptConfig
from adapters.parts import ADAPTED, unlock
from adapters.prepare import prepare
from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.harness.rows import read_lines
from benchmarks.reports.report import RESULTS
from benchmarks.studies import ablation
from benchmarks.studies.ablation import (
    AS_IT_IS,
    CONDITIONS,
    EQUAL,
    FOUR,
    LAST,
    PLAIN,
    START,
    UNGUARDED,
    VARIANTS,
    WHOLE,
    identity,
    main,
    markdown,
    measured,
)
from benchmarks.studies.guard import CONDITIONS as KNOWN
from da_compose import Backbone, Domain
from da_compose.images import ImageSet
from da_compose.starts import plain_start_name


def line(accuracy: float, **changes: Any) -> dict[str, Any]:
    values = {"recipe": "strong", "network": "compositional", "target": "usps", "seed": 0}
    values |= {"condition": "all", "variant": AS_IT_IS, "source_only": 70.0, "batch_norm": 60.0}
    return values | {"accuracy": accuracy} | changes


def test_conditions_are_those_of_the_guard_study() -> None:
    assert set(CONDITIONS) <= set(KNOWN)


def test_a_line_is_known_by_its_cell_not_by_its_result() -> None:
    assert identity(line(80.0)) == identity(line(10.0))
    for changes in ({"seed": 1}, {"variant": START}, {"condition": "tiny-30"}):
        assert identity(line(80.0)) != identity(line(80.0, **changes))


def test_means_are_over_targets_and_seeds_and_the_least_is_over_the_better_baseline() -> None:
    table = markdown(
        [line(10.0), line(80.0), line(68.0, seed=1), line(77.0, target="mnist_m", batch_norm=78.0),
         line(60.0, variant=START), line(50.0, network="unshared", condition="tiny-30")]
    )  # fmt: skip
    assert "MW, recipe strong; mnist_m, usps; seeds 0, 1." in table
    assert "| as it is | 75.0 (-2.0) |" in table
    assert "| nothing learned | 60.0 (-10.0) |" in table
    assert "IA, recipe strong; usps; seeds 0." in table
    assert "| as it is | 50.0 (-20.0) |" in table


@pytest.mark.parametrize("trains", ADAPTED)
def test_variants_are_what_adapt_gives_with_and_without_a_part(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, trains: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    test = ImageSet(images, np.zeros(60, dtype=np.int64))
    options: dict[str, Any] = {"steps": 6, "batch_size": 8, "check_every": 2, "trains": trains}

    def state(backbone: Backbone, domain: Domain, test: ImageSet) -> Tensor:
        """All of a domain that adaptation may have changed, in place of its accuracy."""
        whole = deepcopy(domain)
        unlock(backbone.network, whole, trains)  # a start that shares it with the network
        return torch.cat([value.detach().flatten() for value in whole.state_dict().values()])

    def adapted(**more: Any) -> Tensor:
        return state(backbone, adapt(backbone, images, **options, **more).domain, test)

    monkeypatch.setattr(ablation, "accuracy", state)
    found: Any = dict(measured(backbone, images, test, AdaptConfig(guard=False, **options)))
    assert set(found) == set(VARIANTS)
    chosen = prepare(backbone, images, "target", AdaptConfig(**options)).target
    assert found[START].equal(state(backbone, chosen, test))
    assert found[AS_IT_IS].equal(adapted())
    assert found[UNGUARDED].equal(adapted(guard=False))
    plain = plain_start_name(backbone)
    assert found[PLAIN].equal(adapted(start=plain))
    monkeypatch.setattr(ablation, "judge_learning", trusting)
    found = dict(measured(backbone, images, test, AdaptConfig(guard=False, **options)))
    last = adapt(backbone, images, guard=False, **options).last
    assert last is not None
    way = len(images) / (len(images) + AdaptConfig.prior_images)
    start, end = found[START], state(backbone, last, test)
    torch.testing.assert_close(found[LAST], start.lerp(end, way))
    assert found[WHOLE].equal(adapted(guard=False, prior_images=0))
    monkeypatch.setattr("adapters.prepare.class_frequencies", lambda p: torch.full((10,), 0.1))
    assert found[EQUAL].equal(adapted(guard=False))
    last = adapt(backbone, images, guard=False, **options).last
    assert last is not None
    torch.testing.assert_close(found[FOUR], state(backbone, last, test))


def trusting(*predictions: Tensor, **certain: float) -> SimpleNamespace:
    return SimpleNamespace(trusted=True)


def test_study_writes_every_variant_once(
    run_study_twice: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(PROFILES["full"], pretrain_steps=2, adapt_steps=1)
    monkeypatch.setitem(PROFILES, "full", short)
    results = run_study_twice(main, "paper", "compositional")
    lines = read_lines(results / "results.jsonl")
    assert len(lines) == len(CONDITIONS) * len(VARIANTS) == len({identity(line) for line in lines})
    assert {line["commit"] for line in lines} == {"abc1234"}
    table = (results / "table.md").read_text(encoding="utf-8")
    assert table == markdown(lines)


def test_the_committed_table_is_made_from_the_committed_rows() -> None:
    folder = RESULTS / "ablation"
    made = markdown(read_lines(folder / "results.jsonl"))
    assert made == (folder / "table.md").read_text(encoding="utf-8")


def test_a_users_mistake_ends_in_one_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--data", str(tmp_path / "missing")])
    assert found.exit_code == 1
    assert found.output.startswith("Error: expected a data root")
