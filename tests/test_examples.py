"""Every script of examples/ runs as it stands, in a folder of its own."""

import ast
import sys

import pytest

from tests.snippets import ROOT, run_here

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)


def test_there_are_examples():
    assert EXAMPLES


@every_example
def test_an_example_says_what_it_shows(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.shown
@every_example
def test_an_example_runs(path, tmp_path):
    ended = run_here([sys.executable, str(path), str(tmp_path / "made")], tmp_path)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout
    assert [made.name for made in tmp_path.iterdir()] == ["made"]
