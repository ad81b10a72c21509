import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adapters.config import AdaptConfig
from adapters.parts import LEARNING_RATES, MIXED, STEPS
from adapters.strategies import STRATEGIES
from adapters.strategies.contract import rate_of
from benchmarks.harness.plan import NETWORKS, TRAINED, UNTUNED
from benchmarks.harness.rows import read_lines
from benchmarks.reports.report import RESULTS
from benchmarks.studies.tuning import (
    DEVELOPMENT_TARGETS,
    LENGTHS,
    MULTIPLES,
    default_of,
    identity,
    main,
    markdown,
    settings,
    shared_choices,
    summary,
    table,
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
    for name in STRATEGIES.keys() - UNTUNED:
        rate = pytest.approx(LEARNING_RATES[trains] * rate_of(STRATEGIES[name]()))
        assert any(s == name and rate == r and n == default.num_steps for s, r, n in found), name
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
    text = markdown(means)
    assert "| 0.1 | 100 | **75.00** | 74.00 | 85.00 | 65.00 | 4 |" in text
    assert "| 0.3 | 100 | 45.00 |" in text


def test_what_is_one_number_for_both_networks_is_chosen_by_the_mean_of_both() -> None:
    other = {"network": "unshared", "trains": "input_adapter", "learning_rate": 0.003}
    text = shared_choices(summary([line(80.0), line(60.0, **other)]))
    assert "| information_maximization | 1 | 100 | 70.00 |" in text


def test_what_one_network_alone_was_measured_with_is_no_shared_choice() -> None:
    text = shared_choices(summary([line(80.0), line(90.0, steps=300)]))
    assert "information_maximization" not in text


def test_an_oracle_has_no_last_iterate() -> None:
    found = line(90.0, strategy="oracle", trains="all", learning_rate=0.001)
    del found["last_accuracy"]
    assert "| **90.00** | - |" in markdown(summary([found, line(80.0)]))


def test_a_line_is_known_by_its_setting_and_backbone_not_by_its_result() -> None:
    assert identity(line(80.0)) == identity(line(10.0))
    assert identity(line(80.0)) != identity(line(80.0, seed=1))
    assert identity(line(80.0)) != identity(line(80.0, steps=50))


def test_steps_are_doubled_as_long_as_it_pays_and_then_the_rate_is_the_best() -> None:
    def accuracies(*means: float) -> list[dict[str, Any]]:
        return [line(mean, steps=steps) for mean, steps in zip(means, LENGTHS, strict=False)]

    for means, steps in (
        ((70.0, 70.2, 75.0), 50),
        ((70.0, 71.0, 71.1, 75.0), 100),
        ((70.0, 70.3, 70.6, 70.9), 400),
    ):
        assert default_of(summary(accuracies(*means)), "mixture_weights") == (0.1, steps)
    others = [line(71.5, learning_rate=0.3), line(99.0, learning_rate=0.03, steps=50)]
    assert default_of(summary([*accuracies(70.0, 71.0), *others]), "mixture_weights") == (0.3, 100)


def test_the_committed_table_is_made_from_the_committed_rows() -> None:
    folder = RESULTS / "tuning"
    made = table(read_lines(folder / "results.jsonl"))
    assert made == (folder / "table.md").read_text(encoding="utf-8")
    assert json.loads((folder / "results.jsonl").read_text().splitlines()[0])["commit"]


@pytest.mark.parametrize("trains", sorted(TRAINED.values()))
def test_defaults_are_the_choices_of_the_committed_rows(trains: str) -> None:
    means = summary(read_lines(RESULTS / "tuning" / "results.jsonl"))
    learned = means[(means.strategy == MIXED.strategy) & (means.trains == trains)]
    assert set(learned.steps) == set(LENGTHS)
    assert (learned.steps == STEPS[trains]).sum() == len(MULTIPLES)
    assert default_of(means, trains) == (pytest.approx(LEARNING_RATES[trains]), STEPS[trains])


def test_a_users_mistake_ends_in_one_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--data", str(tmp_path / "missing")])
    assert found.exit_code == 1
    assert found.output.startswith("Error: expected a data root")
