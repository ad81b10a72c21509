"""Own runs into committed results, by an explicit command, in a checkout alone."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.committed import publish
from benchmarks.committed.publish import DRAW, publish_runs
from benchmarks.harness.folders import folder_of_rows
from benchmarks.harness.rows import append_row, read_rows
from benchmarks.reports.report import RESULTS
from tests.benchmarks.calls import refuse, succeed
from tests.benchmarks.rows import ROW


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of digits with two rows, and a plot of a backbone."""
    results = tmp_path / "runs" / "digits" / "results"
    for seed in (0, 1):
        append_row(results / "results.jsonl", replace(ROW, seed=seed))
    (results / "quick-usps-f00d-paper-compositional-mixtures.png").write_bytes(b"plot")
    return tmp_path / "runs" / "digits"


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """Committed results with the first of these rows, and one of another seed."""
    for seed in (7, 0):
        append_row(tmp_path / "committed/digits/results.jsonl", replace(ROW, seed=seed))
    return tmp_path / "committed"


def test_new_rows_are_added_and_tables_and_plots_follow(runs, committed):
    folder, new = publish_runs(runs, committed)
    assert (folder, new) == (committed / "digits", 1)
    assert [row.seed for row in read_rows(folder / "results.jsonl")] == [7, 0, 1]
    made = {path.name for path in folder.iterdir()}
    assert "quick-usps-f00d-paper-compositional-mixtures.png" not in made
    assert {"table.md", "table.tex", "quick-usps-f00d-accuracy.png"} <= made
    before = (folder / "results.jsonl").read_bytes()
    assert publish_runs(runs / "results", committed) == (folder, 0)  # also named itself
    assert (folder / "results.jsonl").read_bytes() == before


def test_every_committed_result_has_a_way_to_be_drawn():
    assert {path.name for path in RESULTS.iterdir()} <= set(DRAW)


@pytest.mark.parametrize("name", ["ablation", "few_labels", "guard", "memory", "speed", "tuning"])
def test_publishing_committed_rows_again_changes_nothing(tmp_path, name):
    for folder in ("runs", "committed"):
        shutil.copytree(RESULTS / name, tmp_path / folder / name)
    _, new = publish_runs(tmp_path / "runs" / name, tmp_path / "committed")
    assert new == 0
    for file in (RESULTS / name).iterdir():
        assert (tmp_path / "committed" / name / file.name).read_bytes() == file.read_bytes()


def test_what_cannot_be_published_is_refused_and_changes_nothing(runs, committed, tmp_path):
    before = (committed / "digits" / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"name of no benchmark or study; expected .* digits,"):
        publish_runs(runs.rename(tmp_path / "runs" / "mine"), committed)
    with pytest.raises(ValueError, match="no rows in"):
        publish_runs(tmp_path / "runs" / "digits", committed)
    with pytest.raises(ValueError, match="committed results themselves"):
        publish_runs(committed / "digits", committed)
    assert (committed / "digits" / "results.jsonl").read_bytes() == before


def test_the_command_publishes_in_a_checkout_alone(runs, committed, monkeypatch):
    monkeypatch.setattr("benchmarks.cli.report.RESULTS", committed)
    said = succeed("publish", runs).stdout
    assert said.startswith(f"1 new rows; tables and plots are in {committed / 'digits'}")
    monkeypatch.setattr("benchmarks.cli.report.checkout", lambda: None)
    monkeypatch.setattr(publish, "append_line", lambda *_: pytest.fail("wrote"))
    assert "run it from a clone" in refuse("publish", runs)


def test_report_takes_runs_committed_results_or_neither(runs, committed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in ((), ("--results", runs), ("--results", runs / "results")):
        (runs / "results" / "table.md").unlink(missing_ok=True)
        said = succeed("report", *arguments).stdout
        assert said.strip().endswith("runs/digits/results")
        assert (runs / "results" / "table.md").exists()
    succeed("report", "--results", committed / "digits")
    assert (committed / "digits" / "table.md").exists()


def test_rows_lie_in_the_folder_or_in_its_results(runs, tmp_path):
    assert folder_of_rows(runs) == folder_of_rows(runs / "results") == runs / "results"
    assert folder_of_rows(tmp_path) == tmp_path
    line = (runs / "results" / "results.jsonl").read_text().splitlines()[0]
    assert json.loads(line) == asdict(ROW)
