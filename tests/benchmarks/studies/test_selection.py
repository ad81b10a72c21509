from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from adapters import StartConfig
from benchmarks.harness.cells import Splits
from benchmarks.harness.digit_benchmark import PROFILES
from benchmarks.harness.rows import read_lines
from benchmarks.reports.report import RESULTS
from benchmarks.studies import selection as selection_study
from benchmarks.studies.criteria import CRITERIA
from benchmarks.studies.selection import (
    CRITERION_NAMES,
    DEVELOPMENT,
    RANDOM,
    finished_pools,
    main,
    markdown,
    measure_pool,
    summary,
)
from da_compose import Backbone
from da_compose.images import ImageSet

MODELS = 4  # adaptations of a pool


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_study, "MULTIPLES", (1.0,))
    monkeypatch.setattr(selection_study, "STEPS", 1)
    monkeypatch.setitem(PROFILES, "full", replace(PROFILES["full"], pretrain_steps=2))


def splits(*, relabel: bool = False) -> Splits:
    generator = np.random.default_rng(0)
    train, test = generator.integers(0, 256, (2, 20, 32, 32), dtype=np.uint8)
    labels = np.arange(20) % 10
    return Splits(ImageSet(train, labels[::-1] if relabel else labels), ImageSet(test, labels))


def pool(accuracies: list[float], right: list[float], **changes: Any) -> list[dict[str, Any]]:
    """Lines of starts and a kept adaptation, whose criteria are `right`; `bnm` is useless."""
    shared: dict[str, Any] = {
        "benchmark": "digits", "recipe": "paper", "network": "unshared", "seed": 0,
        "target": "usps", "candidates": len(accuracies), "commit": "abc1234",
    }  # fmt: skip
    shared |= changes
    kinds = ["start"] * (len(accuracies) - 1) + ["kept"]
    return [
        shared
        | {"candidate": str(place), "kind": kind, "accuracy": accuracy}
        | dict.fromkeys(CRITERION_NAMES, value)
        | {"bnm": 1.0}
        for place, (kind, accuracy, value) in enumerate(zip(kinds, accuracies, right, strict=True))
    ]


def test_a_pool_holds_every_start_and_both_ends_of_every_adaptation(backbone: Backbone) -> None:
    lines = list(measure_pool(backbone, splits(), "mixture_weights", seed=0))
    kinds = [line["kind"] for line in lines]
    assert kinds.count("start") == 3 * len(StartConfig().shares)  # the mean and both sources
    assert kinds.count("kept") == kinds.count("last") == MODELS
    assert len({(line["candidate"], line["kind"]) for line in lines}) == len(lines)
    assert all({*CRITERION_NAMES, "accuracy"} <= {*line} for line in lines)
    assert {"mean 0", "mnist 0.5", "meter 1"} <= {line["candidate"] for line in lines}
    relabelled = measure_pool(backbone, splits(relabel=True), "mixture_weights", seed=0)
    assert list(relabelled) == lines  # labels of training images change nothing


def test_a_pool_is_finished_when_every_candidate_is_there() -> None:
    lines = pool([50, 60, 70], [1, 2, 3])
    assert finished_pools(lines) == {("paper", "unshared", 0, "usps")}
    assert finished_pools([lines[0], lines[1], lines[1]]) == set()
    assert finished_pools([]) == set()


def test_rank_and_regret_of_a_right_a_wrong_and_a_constant_criterion() -> None:
    lines = pool([50, 60, 70], [1, 2, 3]) + pool([80, 70, 50], [1, 2, 3], seed=1)
    found = summary(lines).loc["usps"]
    assert found.loc[("all", "dev"), "rank"] == pytest.approx(0)  # +1 and -1
    assert found.loc[("all", "dev"), "spread"] == pytest.approx(2**0.5)
    assert found.loc[("all", "dev"), "regret"] == pytest.approx((0 + 30) / 2)
    assert found.loc[("all", "dev"), "worst"] == 30
    assert found.loc[("starts", "dev"), "regret"] == pytest.approx((0 + 10) / 2)
    assert found.loc[("adapted", "dev"), "regret"] == 0  # there is but one
    assert found.loc[("all", "bnm"), "rank"] == 0
    assert found.loc[("all", "bnm"), "regret"] == found.loc[("all", RANDOM), "regret"]
    assert found.loc[("all", RANDOM), "regret"] == pytest.approx((10 + 80 - 200 / 3) / 2)


def test_a_candidate_that_was_measured_twice_counts_once() -> None:
    lines = pool([50, 60, 70], [1, 2, 3])
    assert_frame_equal(summary(lines + lines[:2]), summary(lines))


def test_development_targets_stand_first_and_apart() -> None:
    lines = pool([50, 70], [1, 2], target="abc") + pool([50, 70], [2, 1])
    for target in ("optdigits", "mnist_m"):
        lines += pool([50, 70], [1, 2], target=target)
    text = markdown(summary(lines))
    tables = [text.index(f"{name}, ") for name in (f"\n{DEVELOPMENT}", "\nabc", "\nusps")]
    assert tables == sorted(tables)
    assert f"{DEVELOPMENT}, 2 pools:" in text
    assert "| dev | 0.00 ± 0.00 |" in text  # one start has no order
    assert "1.00 ± - | **0.00** | 0.00 |" in text
    assert f"| {RANDOM} | - |" in text


def test_pictures_have_a_table_of_their_own() -> None:
    lines = pool([50, 70], [1, 2], benchmark="pacs", target="sketch")
    lines += pool([50, 70], [1, 2], benchmark="pacs", target="photo") + pool([50, 70], [1, 2])
    found = summary(lines)
    assert set(found.index.unique("targets")) == {"pacs", "usps"}
    assert (found.loc["pacs"].n == 2).all()


def test_study_writes_rows_once_and_the_table(run_study_twice: Callable[..., Path]) -> None:
    results = run_study_twice(main, "strong", "unshared")
    lines = read_lines(results / "results.jsonl")
    starts = [line["candidate"] for line in lines if line["kind"] == "start"]
    assert "pooled 0" in starts
    assert len(lines) == lines[0]["candidates"] == len(starts) + 2 * MODELS
    assert {line["commit"] for line in lines} == {"abc1234"}
    table = (results / "table.md").read_text(encoding="utf-8")
    assert table == markdown(summary(lines))
    assert all(f"\n| {name} |" in table for name in CRITERIA)


def test_a_source_is_no_target(data_root: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data_root), "--results", str(tmp_path), "--target", "meter"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 1
    assert found.output.startswith("Error: meter: a source of the backbones")


def test_the_committed_table_is_made_from_the_committed_rows() -> None:
    folder = RESULTS / "selection"
    lines = read_lines(folder / "results.jsonl")
    assert (folder / "table.md").read_text(encoding="utf-8") == markdown(summary(lines))
