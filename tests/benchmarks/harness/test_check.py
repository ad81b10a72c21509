import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.harness.check import main
from benchmarks.harness.rows import ResultRow
from tests.benchmarks.rows import ROW as BASE

GOOD = replace(
    BASE,
    sources=["mnist"],
    accuracy=80.0,
    source_only=60.0,
    batch_norm=70.0,
    selection="information",
)


def check(folder: Path, *rows: ResultRow, options: tuple[str, ...] = ()) -> Result:
    lines = [json.dumps(asdict(row)) + "\n" for row in rows]
    (folder / "results.jsonl").write_text("".join(lines))
    return CliRunner().invoke(main, [str(folder), *options])


def test_a_run_whose_default_learned_passes(tmp_path):
    result = check(tmp_path, GOOD, replace(GOOD, network="unshared", trains="input_adapter"))
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("accuracy", "passes"),
    [(70.0, True), (69.0, True), (68.9, False), (60.0, False), (59.9, False)],
)
def test_the_default_may_lose_one_point_to_the_better_baseline(tmp_path, accuracy, passes):
    assert (check(tmp_path, replace(GOOD, accuracy=accuracy)).exit_code == 0) == passes


@pytest.mark.parametrize(("accuracy", "passes"), [(60.0, True), (59.9, False)])
def test_a_default_below_the_least_accuracy_fails(tmp_path, accuracy, passes):
    row = replace(GOOD, accuracy=accuracy, source_only=10.0, batch_norm=10.0)
    assert (check(tmp_path, row).exit_code == 0) == passes
    assert check(tmp_path, row, options=("--above", "50")).exit_code == 0


def test_one_bad_row_among_good_ones_fails_and_is_named(tmp_path):
    bad = replace(GOOD, recipe="strong", accuracy=20.0)
    result = check(tmp_path, GOOD, bad)
    assert result.exit_code != 0
    assert "strong compositional mixture_weights on usps" in result.stderr


def test_other_strategies_may_be_bad(tmp_path):
    bad = replace(GOOD, strategy="adversarial", accuracy=5.0)
    assert check(tmp_path, GOOD, bad).exit_code == 0


def test_only_the_last_row_of_a_cell_counts(tmp_path):
    assert check(tmp_path, replace(GOOD, accuracy=5.0), GOOD).exit_code == 0
    assert check(tmp_path, GOOD, replace(GOOD, accuracy=5.0)).exit_code != 0


def test_a_run_without_the_default_fails(tmp_path):
    result = check(tmp_path, replace(GOOD, strategy="adversarial"))
    assert result.exit_code != 0
    assert "no rows of information_maximization" in result.stderr


def test_a_folder_without_results_fails(tmp_path):
    assert CliRunner().invoke(main, [str(tmp_path / "missing")]).exit_code != 0


def test_a_broken_line_fails_in_one_line(tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1 and "line 1" in result.stderr
