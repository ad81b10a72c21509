import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.committed.pages import TABLES, update_pages
from benchmarks.harness.rows import ResultRow
from benchmarks.reports.report import RESULTS
from tests.benchmarks.rows import ROW as BASE

ROW = replace(BASE, profile="full", accuracy=81.25, source_only=60.0, batch_norm=70.0)
BLOCK = "<!-- table:digits -->\nstale\n<!-- /table:digits -->\n"
NAMED = [BLOCK.replace("digits", name) for name in ("digits", "digits-best", "digits-differences")]
MARKED = f"# Title ±\n{''.join(NAMED)}end\n"


def write_rows(folder: Path, *rows: ResultRow) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text)


def test_readme_keeps_everything_but_what_stands_between_its_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED, encoding="utf-8")
    write_rows(tmp_path / "digits", ROW)
    update_pages(readme, tmp_path)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title ±\n<!-- table:digits -->\n")
    assert text.endswith("<!-- /table:digits-differences -->\nend\n")
    assert "81.2" in text and "stale" not in text
    update_pages(readme, tmp_path)
    assert readme.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text", ["no markers", "<!-- table:digits -->", "<!-- /table:digits --><!-- table:digits -->"]
)
def test_a_readme_without_both_markers_is_left_as_it_is(tmp_path, text):
    readme = tmp_path / "README.md"
    text += "".join(NAMED[1:])
    readme.write_text(text)
    write_rows(tmp_path / "digits", ROW)
    with pytest.raises(ValueError, match="<!-- table:digits -->"):
        update_pages(readme, tmp_path)
    assert readme.read_text() == text


def test_readme_shows_no_other_profile(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED, encoding="utf-8")
    write_rows(tmp_path / "digits", replace(ROW, profile="quick"))
    with pytest.raises(ValueError, match="no rows of profile 'full'"):
        update_pages(readme, tmp_path)
    assert readme.read_text(encoding="utf-8") == MARKED


def test_a_page_of_docs_is_made_with_it(tmp_path):
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "digits.md"
    page.parent.mkdir()
    readme.write_text("no markers")
    page.write_text(MARKED, encoding="utf-8")
    write_rows(tmp_path / "digits", ROW)
    update_pages(readme, tmp_path)
    assert readme.read_text() == "no markers"
    assert "81.2" in page.read_text(encoding="utf-8")


def test_markers_of_an_unknown_table_are_named_and_nothing_is_written(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED + BLOCK.replace("digits", "digit"), encoding="utf-8")
    write_rows(tmp_path / "digits", ROW)
    with pytest.raises(ValueError, match="no table digit; there are: digits, "):
        update_pages(readme, tmp_path)
    assert "stale" in readme.read_text(encoding="utf-8")


def task_row(**changes: Any) -> dict[str, Any]:
    values = {
        "part": "depth",
        "profile": "full",
        "setting": "8 layers",
        "seed": 0,
        "task": "kmnist",
    }
    values |= {
        "start": "",
        "trains": [],
        "labels": None,
        "data": "files",
        "data_fingerprint": "f00d",
    }
    values |= {
        "accuracy": 81.25,
        "total_parameters": 85_500,
        "seconds": 30.0,
        "peak_memory_mb": 500.0,
    }
    return (
        values
        | {"found": {}, "commit": "", "device": "cpu", "versions": {}, "config": {}}
        | changes
    )


def test_a_part_of_the_tasks_benchmark_shows_full_rows_of_the_last_data(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(BLOCK.replace("digits", "depth") + BLOCK.replace("digits", "depth-claims"))
    (tmp_path / "tasks").mkdir()
    rows = [
        task_row(data_fingerprint="01d", accuracy=10.0),
        task_row(profile="quick", accuracy=20.0),
        task_row(),
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "tasks" / "results.jsonl").write_text(text)
    update_pages(readme, tmp_path)
    found = readme.read_text(encoding="utf-8")
    assert "| 8 | 81.2 ± - | 85,500 | 30.0 ± - |" in found
    assert "10.0" not in found and "20.0" not in found


def test_the_committed_pages_are_made_from_the_committed_rows(tmp_path):
    root = RESULTS.parents[1]
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    (tmp_path / "docs").mkdir()
    for page in pages:
        copy = tmp_path / page.relative_to(root)
        copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    update_pages(tmp_path / "README.md", RESULTS)
    for page in pages:
        copy = tmp_path / page.relative_to(root)
        assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_a_caption_links_to_the_page_that_says_how_it_is_read(tmp_path):
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "digits.md"
    page.parent.mkdir()
    readme.write_text(NAMED[1])
    page.write_text(NAMED[0] + NAMED[2])
    write_rows(tmp_path / "digits", ROW)
    update_pages(readme, tmp_path)
    assert "[How to read](docs/reading-tables.md)" in readme.read_text(encoding="utf-8")
    assert "[How to read](reading-tables.md)" in page.read_text(encoding="utf-8")


def captions(text: str) -> list[list[str]]:
    """Paragraphs before tables: their lines."""
    blocks = pairwise(text.split("\n\n"))
    found = [block for block, after in blocks if after.startswith("|")]
    return [block.splitlines() for block in found if not block.startswith("|")]


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.md")), ids=lambda path: path.parent.name)
def test_captions_of_committed_tables_take_at_most_three_lines(path):
    found = captions(path.read_text(encoding="utf-8"))
    assert found
    for lines in found:
        assert len(lines) <= 3 and max(map(len, lines)) <= 135


def test_every_table_has_markers_in_a_committed_page():
    root = RESULTS.parents[1]
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [name for name in TABLES if f"<!-- table:{name} -->" not in text] == []
