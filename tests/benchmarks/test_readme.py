import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.readme import TABLES, update_readme
from benchmarks.report import RESULTS
from benchmarks.results import ResultRow
from tests.benchmarks.rows import ROW as BASE

ROW = replace(BASE, profile="full", accuracy=81.25, source_only=60.0, batch_norm=70.0)
MARKED = "# Title ±\n<!-- table:digits -->\nstale\n<!-- /table:digits -->\nend\n"


def write_rows(folder: Path, *rows: ResultRow) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text)


def test_readme_keeps_everything_but_what_stands_between_its_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED, encoding="utf-8")
    write_rows(tmp_path / "digits", ROW)
    update_readme(readme, tmp_path)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title ±\n<!-- table:digits -->\n")
    assert text.endswith("<!-- /table:digits -->\nend\n")
    assert "81.2" in text and "stale" not in text
    update_readme(readme, tmp_path)
    assert readme.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text", ["no markers", "<!-- table:digits -->", "<!-- /table:digits --><!-- table:digits -->"]
)
def test_a_readme_without_both_markers_is_left_as_it_is(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    write_rows(tmp_path / "digits", ROW)
    with pytest.raises(ValueError, match="expected <!-- table:digits -->"):
        update_readme(readme, tmp_path)
    assert readme.read_text() == text


def test_readme_shows_no_other_profile(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(MARKED, encoding="utf-8")
    write_rows(tmp_path / "digits", replace(ROW, profile="quick"))
    with pytest.raises(ValueError, match="no rows of profile 'full'"):
        update_readme(readme, tmp_path)
    assert readme.read_text(encoding="utf-8") == MARKED


def test_the_committed_readme_is_made_from_the_committed_rows(tmp_path):
    committed = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(committed, encoding="utf-8")
    update_readme(readme, RESULTS)
    assert readme.read_text(encoding="utf-8") == committed


def test_every_folder_of_the_tables_has_markers_in_the_committed_readme():
    committed = (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert [name for name in TABLES if f"<!-- table:{name} -->" not in committed] == []
