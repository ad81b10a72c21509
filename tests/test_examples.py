"""Every script of examples/ runs as it stands; they share a folder, and so the backbone in it."""

import ast
import runpy
import sys

import pytest

from tests.snippets import ROOT

SHARED = "digits_at_sites.py"  # what they import
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)


def test_there_are_examples():
    assert EXAMPLES


@every_example
def test_an_example_says_what_it_shows(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("examples") / "made"


@pytest.mark.shown
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path.name != SHARED], ids=lambda path: path.name
)
def test_an_example_runs(path, made, tmp_path, monkeypatch, capsys):
    """In this process, as importing torch would take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "argv", [str(path), str(made)])
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 2
    assert not list(tmp_path.iterdir())
