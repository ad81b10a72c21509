import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adapters.config import LEARNING_RATES, STEPS, STRATEGIES, AdaptConfig
from benchmarks.plan import NETWORKS, TRAINED
from benchmarks.report import RESULTS
from benchmarks.results import read_lines
from benchmarks.tuning import (
    DEVELOPMENT_TARGETS,
    identity,
    main,
    markdown,
    settings,
    shared_choices,
    summary,
)
from data_prep.digits import DIGIT_DOMAINS, MNIST_SOURCES


def line(accuracy: float, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "recipe": "paper", "network": "compositional", "seed": 0, "target": "optdigits",
        "strategy": "information_maximization", "trains": "mixture_weights",
        "learning_rate": 0.1, "steps": 100, "last_accuracy": accuracy - 1,
    }  # fmt: skip
    return values | {"accuracy": accuracy} | changes


def test_development_targets_are_neither_sources_nor_the_target_of_the_benchmark() -> None:
    assert set(DEVELOPMENT_TARGETS) <= set(DIGIT_DOMAINS)
    assert not set(DEVELOPMENT_TARGETS) & {*MNIST_SOURCES, "svhn", "meter", "usps"}


@pytest.mark.parametrize("network", NETWORKS)
def test_grid_holds_the_defaults_and_every_strategy_that_learns(network: str) -> None:
    grid = list(settings(network))
    trains = TRAINED[network]
    default = AdaptConfig(trains=trains)
    found = {(s.strategy, s.learning_rate, s.steps) for s in grid if s.trains == trains}
    for name, method in STRATEGIES.items():
        if method is not None:
            rate = pytest.approx(LEARNING_RATES[trains] * method.RATE)
            assert any(s == name and rate == r and n == default.num_steps for s, r, n in found), (
                name
            )
    assert {s.trains for s in grid if s.strategy == "oracle"} == {"all"}


def test_means_are_over_recipes_seeds_and_targets_and_the_best_is_bold() -> None:
    lines = [
        line(80.0), line(60.0, target="mnist_m"), line(90.0, recipe="strong"),
        line(70.0, recipe="strong", target="mnist_m"),
        line(50.0, learning_rate=0.3), line(40.0, learning_rate=0.3, target="mnist_m"),
    ]  # fmt: skip
    means = summary(lines)
    assert means.accuracy.tolist() == [75.0, 45.0]
    assert means.n.tolist() == [4, 2]
    table = markdown(means)
    assert "| 0.1 | 100 | **75.00** | 74.00 | 85.00 | 65.00 | 4 |" in table
    assert "| 0.3 | 100 | 45.00 |" in table


def test_what_is_one_number_for_both_networks_is_chosen_by_the_mean_of_both() -> None:
    other = {"network": "unshared", "trains": "input_adapter", "learning_rate": 0.003}
    table = shared_choices(summary([line(80.0), line(60.0, **other)]))
    assert "| information_maximization | 1 | 100 | 70.00 |" in table


def test_what_one_network_alone_was_measured_with_is_no_shared_choice() -> None:
    table = shared_choices(summary([line(80.0), line(90.0, steps=300)]))
    assert "information_maximization" not in table


def test_an_oracle_has_no_last_iterate() -> None:
    found = line(90.0, strategy="oracle", trains="all", learning_rate=0.001)
    del found["last_accuracy"]
    assert "| **90.00** | - |" in markdown(summary([found, line(80.0)]))


def test_a_line_is_known_by_its_setting_and_backbone_not_by_its_result() -> None:
    assert identity(line(80.0)) == identity(line(10.0))
    assert identity(line(80.0)) != identity(line(80.0, seed=1))
    assert identity(line(80.0)) != identity(line(80.0, steps=50))


def test_the_committed_table_is_made_from_the_committed_rows() -> None:
    folder = RESULTS / "tuning"
    means = summary(read_lines(folder / "results.jsonl"))
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert table == f"{markdown(means)}\n{shared_choices(means)}"
    assert json.loads((folder / "results.jsonl").read_text().splitlines()[0])["commit"]


@pytest.mark.parametrize("trains", LEARNING_RATES)
def test_defaults_are_the_best_of_the_committed_table(trains: str) -> None:
    means = summary(read_lines(RESULTS / "tuning" / "results.jsonl")).to_dict("records")
    own = [r for r in means if (r["strategy"], r["trains"]) == (AdaptConfig.strategy, trains)]
    rate, steps = LEARNING_RATES[trains], STEPS[trains]
    assert {r["learning_rate"] for r in own if r["steps"] == steps} > {rate}
    assert {r["steps"] for r in own if r["learning_rate"] == pytest.approx(rate)} > {steps}
    best = max(own, key=lambda row: row["accuracy"])
    assert (best["learning_rate"], best["steps"]) == (pytest.approx(rate), steps)


def test_a_users_mistake_ends_in_one_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--data", str(tmp_path / "missing")])
    assert found.exit_code == 1
    assert found.output.startswith("Error: expected a data root")
