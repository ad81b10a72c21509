"""The documentation site, as far as it can be tried without building it: `make docs` does that."""

import importlib.util
import re

import click
import pytest

from benchmarks.cli.main import COMMANDS
from benchmarks.reports.html_page import STYLE
from tests.snippets import PAGES, ROOT

spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
assert spec is not None and spec.loader is not None
hooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hooks)
DOCS = ROOT / "docs"
NAV = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_page_is_in_the_navigation_once():
    assert len(NAV) == len(set(NAV))
    ours = {page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS)}
    assert {page for page in NAV if not page.startswith(hooks.COPIES)} == ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_one_title_in_its_first_line(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert text.startswith("# ") and len(re.findall("^# ", text, re.MULTILINE)) == 1


def test_links_lead_to_the_sites_copies():
    text = "[a](../depth.md#x) [b](../../examples/many_domains.py) [c](../../README.md) [d](https://x.y)"
    assert hooks.moved(text, DOCS / "guides" / "python.md", "guides/python.md") == (
        "[a](../depth.md#x) [b](../repository/examples/many_domains.py.md) [c](../index.md) "
        "[d](https://x.y)"
    )
    found = hooks.targets(text, DOCS / "guides" / "python.md")
    assert [path.name for path in found] == ["depth.md", "many_domains.py", "README.md"]


def test_a_folder_is_shown_as_a_list_with_its_plots():
    text = hooks.page_of(ROOT / "benchmarks" / "results" / "tasks")
    assert "- [results.jsonl](results.jsonl)" in text
    assert "![full-7d52c4-few-shots](full-7d52c4-few-shots.png)" in text


def test_sections_of_readme_are_taken_with_their_links_or_missed():
    (text,) = hooks.section("index.md", "README.md", "From Python")
    assert text.startswith("On small pictures") and "(guides/index.md)" in text
    with pytest.raises(ValueError, match="no heading 'Nowhere'"):
        list(hooks.section("index.md", "README.md", "Nowhere"))


@pytest.mark.parametrize("package", ["da_compose", "adapters"])
def test_every_public_name_is_in_the_reference(package):
    home = importlib.import_module(package)
    found = [line.removeprefix("::: ").rpartition(".") for line in hooks.names("", package)]
    assert sorted(name for _, _, name in found) == sorted(home.__all__)
    for module, _, name in found:
        assert getattr(importlib.import_module(module), name) is getattr(home, name)


def test_every_command_is_in_the_reference():
    before = click.get_current_context(silent=True)
    text = "\n".join(hooks.commands(""))
    assert click.get_current_context(silent=True) is before
    assert all(f"## da-compose {name}\n" in text for name in COMMANDS)
    assert "Usage: da-compose adapt [OPTIONS]" in text and "## da-compose bench digits" in text
    assert max(map(len, text.splitlines())) <= hooks.WIDTH
    assert "|information_maximization|" in text.replace("\n", "").replace(" ", "")


def test_the_sample_report_is_of_todays_form_and_small():
    sample = (DOCS / "guides" / "report-sample.html").read_text(encoding="utf-8")
    assert STYLE in sample, "make it anew, by the commands of README, from a clean commit"
    assert len(sample) < 300_000
    assert all(
        f"<dt>{question}</dt>" in sample for question in ("How good is it?", "What changed?")
    )
