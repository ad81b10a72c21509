from dataclasses import replace

import pytest

from benchmarks.harness.rows import ResultRow
from benchmarks.reports.differences import (
    Difference,
    differences_markdown,
    of_one_target,
    of_rotation,
)
from tests.benchmarks.rows import ROW

UNTRAINED = {"trains": "nothing", "learned_parameters": 0}


def row(
    accuracy: float,
    strategy: str = "auto",
    *,
    seed: int = 0,
    network: str = "compositional",
    **changes: object,
) -> ResultRow:
    trains = {"compositional": "mixture_weights", "unshared": "input_adapter"}[network]
    values = {"strategy": strategy, "seed": seed, "network": network, "trains": trains}
    values |= {"accuracy": accuracy, "source_only": 70.0, "batch_norm": 60.0}
    values |= {"oracle": strategy == "oracle"}
    return replace(ROW, **values | changes)


def test_the_interval_is_students() -> None:
    three = Difference(text="", values=[1.0, 2.0, 3.0])
    assert three.margin == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t of 2 degrees, deviation 1
    assert Difference(text="", values=[1.0]).margin != Difference(text="", values=[1.0]).margin


def test_ours_is_compared_with_the_others_best_strategy_seed_by_seed() -> None:
    rows = [
        *(row(80.0 + seed, seed=seed) for seed in range(3)),
        *(row(99.0, seed=seed, network="unshared", oracle=True) for seed in range(3)),
        *(row(90.0, "moment_matching", seed=s, network="unshared") for s in range(2)),
        row(70.0, "source_only", network="unshared", **UNTRAINED),
        *(row(75.0, "auto", seed=s, network="unshared") for s in range(3)),
    ]
    over_theirs, percent, over_start, *_ = of_one_target(rows)
    assert "IA, Moment matching (M3SDA), its best" in over_theirs.text
    assert over_theirs.values == [-10.0, -9.0] and over_theirs.wanted == 0  # seeds of both
    assert percent.values == [80.0, 81.0, 82.0]
    assert over_start.values == [10.0, 11.0, 12.0]


def test_seeds_that_ours_lacks_neither_choose_the_best_nor_are_paired() -> None:
    rows = [
        *(row(90.0, seed=seed) for seed in range(2)),
        *(row(92.0, "auto", seed=seed, network="unshared") for seed in range(2)),
        row(89.0, "adversarial", network="unshared"),
        row(99.0, "adversarial", seed=5, network="unshared"),
    ]
    over_theirs, *_ = of_one_target(rows)
    assert "IA, Auto, its best" in over_theirs.text
    assert over_theirs.values == [-2.0, -2.0]
    percent, *_ = of_one_target([row(90.0), row(92.0, seed=1, network="unshared")])
    assert percent.text == "MW, auto (percent)"  # no seed of both: nothing to compare


def test_what_was_learned_is_over_the_chosen_start_of_the_same_backbone() -> None:
    rows = [
        row(75.0),
        row(76.0, seed=1),
        row(73.0, "chosen_start", **UNTRAINED),
        row(60.0, "chosen_start", network="unshared", **UNTRAINED),
    ]
    *_, learned = of_one_target(rows)
    assert "over its own start" in learned.text and learned.values == [2.0]


def test_the_share_recovered_is_of_the_oracle_of_the_same_numbers_over_the_better_start() -> None:
    rows = [
        row(74.0),
        row(78.0, seed=1),
        row(80.0, "oracle"),
        row(80.0, "oracle", seed=1),
        row(95.0, "oracle", trains="all"),
    ]
    *_, share = of_one_target(rows)
    assert share.values == [pytest.approx(60.0)] and share.wanted == 80


@pytest.mark.parametrize("oracle", [70.0, 65.0])
def test_of_an_oracle_that_gains_nothing_there_is_no_share(oracle: float) -> None:
    found = of_one_target([row(74.0), row(oracle, "oracle")])
    assert not any("share" in difference.text for difference in found)


def test_other_data_have_a_table_of_their_own() -> None:
    """So targets of two data sets are not taken for targets in turn."""
    other = row(80.0, data="bundled", data_fingerprint="beef", target="optdigits")
    text = differences_markdown([row(96.0), other])
    assert "data: files (f00d)" in text and "data: bundled (beef)" in text
    assert text.count("MW, auto (percent)") == 2 and "least:" not in text


def test_seeds_are_named_recipe_by_recipe() -> None:
    rows = [row(96.0), row(96.0, seed=1), row(97.0, seed=4, recipe="strong-long")]
    assert f"over seeds 0, 1 ({ROW.recipe}); 4 (strong-long)." in differences_markdown(rows)


def test_in_turn_the_mean_of_targets_and_the_least_of_a_target() -> None:
    rows = [
        row(75.0, target="usps"),
        row(69.0, target="meter", sources=["mnist"]),
        row(77.0, target="usps", seed=1),
        row(70.0, target="meter", sources=["mnist"], seed=1),
        row(99.0, target="usps", seed=2),  # it lacks a target
        row(90.0, "moment_matching", target="usps"),
        row(80.0, "oracle", target="usps"),
        row(78.0, "oracle", target="meter", sources=["mnist"]),
        row(95.0, "oracle", target="usps", trains="all"),
    ]
    mean, least, oracle, _ = of_rotation(rows)
    assert mean.values == [2.0, 3.5] and mean.wanted == 3
    assert least.values == [-1.0, 0.0] and least.wanted == -0.5
    assert least.text.endswith("least: meter")
    assert oracle.values == [9.0] and oracle.wanted is None and "target labels" in oracle.text


def test_a_table_says_what_was_wanted_and_whether_it_is_so() -> None:
    text = differences_markdown([row(94.0, seed=seed) for seed in (0, 1)])
    assert "| paper: MW, auto (percent) | 94.0 | 94.0 to 94.0 | at least 95: no |" in text
    assert "over seeds 0, 1" in text
    alone = differences_markdown([row(96.0, recipe="strong")])
    assert "| strong: MW, auto (percent) | 96.0 | - | at least 95: yes |" in alone
