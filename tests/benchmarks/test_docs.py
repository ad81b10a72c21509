"""The pages of docs/, whose tables are made from the rows of the tasks benchmark."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.readme import update_docs
from benchmarks.report import RESULTS
from benchmarks.tasks.run import TaskRow
from benchmarks.tasks.tables import TABLES

DOCS = RESULTS.parents[1] / "docs"
ROW = TaskRow(
    part="depth",
    profile="full",
    setting="8 layers",
    seed=0,
    task="kmnist",
    start="",
    trains=[],
    labels=None,
    data="files",
    data_fingerprint="f00d",
    accuracy=81.25,
    total_parameters=85_500,
    seconds=30.0,
    peak_memory_mb=500.0,
    found={},
    commit="abc1234",
    device="cpu",
    versions={},
    config={},
)
PAGE = """# Depth
<!-- table:depth -->
stale
<!-- /table:depth -->
<!-- table:claims -->
<!-- /table:claims -->
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [
        replace(ROW, data_fingerprint="01d", accuracy=10.0),
        replace(ROW, profile="quick", accuracy=20.0),
        ROW,
    ]
    file = tmp_path / "results" / "tasks" / "results.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return tmp_path / "results"


def test_a_page_gets_the_full_rows_of_the_last_data(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "depth.md"
    page.write_text(PAGE, encoding="utf-8")
    update_docs(tmp_path, results)
    text = page.read_text(encoding="utf-8")
    assert "| 8 | 81.2 ± - | 85,500 | 30.0 ± - |" in text
    assert "stale" not in text and "10.0" not in text and "20.0" not in text
    update_docs(tmp_path, results)
    assert page.read_text(encoding="utf-8") == text


def test_a_page_without_markers_is_left_as_it_is(results: Path, tmp_path: Path) -> None:
    (tmp_path / "depth.md").write_text("# Depth\n")
    with pytest.raises(ValueError, match="expected <!-- table:depth -->"):
        update_docs(tmp_path, results)
    assert (tmp_path / "depth.md").read_text() == "# Depth\n"


def test_the_committed_pages_are_made_from_the_committed_rows(tmp_path: Path) -> None:
    for part in TABLES:
        committed = (DOCS / f"{part}.md").read_text(encoding="utf-8")
        (tmp_path / f"{part}.md").write_text(committed, encoding="utf-8")
    update_docs(tmp_path, RESULTS)
    for part in TABLES:
        found = (tmp_path / f"{part}.md").read_text(encoding="utf-8")
        assert found == (DOCS / f"{part}.md").read_text(encoding="utf-8")
