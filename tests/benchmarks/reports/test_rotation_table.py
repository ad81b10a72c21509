from dataclasses import replace

import pytest

from benchmarks.harness.rows import ResultRow
from benchmarks.reports.rotation_table import rotation_frame, rotation_markdown
from tests.benchmarks.rows import ROW


def row(target: str, accuracy: float, seed: int = 0, **changes: object) -> ResultRow:
    values = {
        "benchmark": "pacs", "recipe": "strong", "target": target, "seed": seed,
        "sources": ["x"], "accuracy": accuracy, "source_only": 50.0, "batch_norm": 60.0,
    }  # fmt: skip
    return replace(ROW, **values | changes)


ROWS = [row("art", 62.0), row("art", 66.0, 1), row("photo", 71.0), row("photo", 73.0, 1)]


def test_means_are_over_seeds_then_targets():
    (line,) = rotation_frame(ROWS).to_dict("records")
    assert (line["art"], line["photo"], line["mean"]) == (64.0, 72.0, 68.0)
    assert line["std"]["art"] == pytest.approx(8**0.5)
    assert line["mean_std"] == pytest.approx(((69.5 - 68) ** 2 * 2) ** 0.5)
    assert (line["gain"], line["least"]) == (8.0, 4.0)


def test_the_better_start_is_source_only_where_that_is_better():
    (line,) = rotation_frame([row("art", 62.0), row("photo", 62.0, source_only=65.0)]).to_dict(
        "records"
    )
    assert (line["least"], line["over_start"]) == (2.0, -3.0)


def test_a_seed_that_lacks_a_target_counts_in_no_spread_over_seeds():
    frame = rotation_frame([*ROWS, row("art", 90.0, 2)])
    assert frame.mean_std[0] == pytest.approx(((69.5 - 68) ** 2 * 2) ** 0.5)


def test_lines_are_in_the_order_of_all_tables_whatever_the_rows():
    oracle = row("art", 99.0, strategy="oracle", oracle=True)
    start = row("art", 61.0, strategy="source_only", trains="nothing", learned_parameters=0)
    frame = rotation_frame([oracle, *ROWS, start])
    assert list(frame.strategy) == ["source_only", "information_maximization", "oracle"]


def test_networks_have_tables_of_their_own_and_oracles_are_named():
    other = {"network": "unshared", "trains": "input_adapter", "learned_parameters": 100}
    oracle = row("art", 99.0, strategy="oracle", oracle=True, trains="all")
    text = rotation_markdown([*ROWS, row("art", 61.0, **other), oracle])
    first, second = text.split("pacs, unshared network")
    assert "| Information maximization | 64.0 ± 2.8 | 72.0 ± 1.4 | 68.0 ± 2.1 | +8.0 |" in first
    # What lacks a target has no mean or gain to read beside those of others
    assert "| oracle (target labels), all | 99.0 | - | - | - | - | - |" in first
    assert "| Information maximization | 61.0 | 61.0 |" in second


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="run the benchmark first"):
        rotation_markdown([])
