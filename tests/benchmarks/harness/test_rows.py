import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.rows import append_row, cell, latest, named_anew, read_rows
from tests.benchmarks.rows import ROW as BASE
from tests.forks import exit_code, fork

ROW = replace(BASE, versions={"torch": "2"}, config={"steps": 100})


def test_rows_read_back_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    rows = [replace(ROW, seed=seed, selection="best é → 1\n") for seed in range(3)]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    assert path.read_bytes().count(b"\n") == 3


def test_an_absent_file_holds_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.jsonl") == []


def _append_many(path: Path, strategy: str) -> None:
    for seed in range(100):
        append_row(path, replace(ROW, strategy=strategy, seed=seed, config={"pad": "x" * 6000}))


def test_two_processes_append_at_once_without_losing_or_tearing_a_row(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    children = [fork(partial(_append_many, path, name)) for name in ("one", "two")]
    assert [exit_code(child) for child in children] == [0, 0]
    rows = read_rows(path)
    for name in ("one", "two"):
        assert [row.seed for row in rows if row.strategy == name] == list(range(100))


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_line_is_skipped_then_removed_by_the_next_append(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "results.jsonl"
    append_row(path, ROW)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    with pytest.warns(UserWarning, match="skipped a torn last line"):
        assert read_rows(path) == [ROW]
    with pytest.warns(UserWarning, match="removed a torn last line"):
        append_row(path, replace(ROW, seed=1))
    assert [row.seed for row in read_rows(path)] == [0, 1]


def test_a_whole_last_line_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(asdict(ROW)))
    append_row(path, replace(ROW, seed=1))
    assert [row.seed for row in read_rows(path)] == [0, 1]


@pytest.mark.parametrize(
    "broken",
    ['{"benchmark": ', "[]", '{"benchmark": "digits"}', json.dumps(asdict(ROW) | {"extra": 1})],
)
def test_any_other_broken_line_is_refused_with_its_number(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "results.jsonl"
    append_row(path, ROW)
    path.write_text(path.read_text() + broken + "\n")
    append_row(path, ROW)
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2: expected a result row"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile", "fast"),
        ("data", "memory"),
        ("trains", "everything"),
        ("network", "shared"),
        ("recipe", "weak"),
        ("strategy", ""),
        ("seed", -1),
        ("seed", "0"),
        ("seed", True),
        ("oracle", 0),
        ("accuracy", 100.1),
        ("accuracy", float("nan")),
        ("batch_norm", "50"),
        ("seconds", float("inf")),
        ("sources", []),
        ("sources", ["mnist", "usps"]),
        ("sources", "mnist"),
        ("learned_parameters", 0),
        ("learned_parameters", 40_001),
        ("config", None),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*, expected .*; correct"):
        replace(ROW, **{name: value})


def test_a_row_that_json_cannot_hold_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(ValueError, match="keep config to finite numbers"):
        append_row(path, replace(ROW, config={"loss": float("nan")}))
    assert not path.exists()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100)), max_size=12))
def test_latest_keeps_the_last_row_of_each_cell(runs: list[tuple[int, float]]) -> None:
    rows = [replace(ROW, seed=seed, accuracy=accuracy) for seed, accuracy in runs]
    expected: dict[int, float] = {}
    for seed, accuracy in runs:
        expected[seed] = accuracy
    assert {row.seed: row.accuracy for row in latest(rows)} == expected
    assert len(latest(rows)) == len(expected)


def test_a_cell_is_what_was_run_and_not_how_it_went() -> None:
    named = asdict(ROW)
    again = replace(ROW, accuracy=1.0, seconds=1.0, commit="other", device="cuda", config={})
    assert cell(asdict(again)) == cell(named)
    assert len({cell(named), cell(asdict(again))}) == 1
    changes = [
        {"benchmark": "pictures"},
        {"profile": "full"},
        {"data": "bundled"},
        {"data_fingerprint": "beef"},
        {"sources": ["mnist"]},
        {"target": "svhn"},
        {"seed": 1},
        {"strategy": "adversarial"},
        {"trains": "all"},
        {"network": "unshared"},
        {"recipe": "strong"},
        {"oracle": True},
    ]
    assert all(cell(named | change) != cell(named) for change in changes)


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ("affine", "batch_norm"),
        ("mixture_weights", "mixture_weights"),
        ("nothing", "nothing"),
        (["logits", "batch_norm", "mixture_weights"], ["heads", "batch_norm", "mixture_weights"]),
        (["logits"], ["heads"]),
        ([], []),
    ],
)
def test_parts_of_old_rows_have_the_names_of_today(former: Any, today: Any) -> None:
    line = {"trains": former, "seed": 0, "strategy": "affine"}
    assert named_anew(line) == {"trains": today, "seed": 0, "strategy": "affine"}
    assert line["trains"] == former
    assert named_anew(named_anew(line)) == named_anew(line)


def test_a_line_without_parts_is_as_it_was() -> None:
    line = {"seed": 0, "variant": "as it is"}
    assert named_anew(line) == line


def test_rows_of_before_a_renaming_are_read_and_count_for_the_same_cell(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    new = replace(ROW, strategy="oracle", oracle=True, trains="batch_norm", selection="labels")
    path.write_text(json.dumps(asdict(new) | {"trains": "affine"}) + "\n")
    assert read_rows(path) == [new]
    append_row(path, replace(new, accuracy=1.0))
    assert latest(read_rows(path)) == [replace(new, accuracy=1.0)]
    assert '"trains": "affine"' in path.read_text().splitlines()[0]  # the file is as it was
