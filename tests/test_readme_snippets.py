"""README and the pages of docs/ are run as they stand."""

import re
import sys
from pkgutil import resolve_name

import pytest

from tests.snippets import MARKED, PAGES, ROOT, marked_blocks, run_here, shell_script

RUNNABLE = {
    "python": lambda block: [sys.executable, "-c", block],
    "sh": lambda block: ["bash", "-c", shell_script(block)],
}
WITH_BLOCKS = [page for page in PAGES if marked_blocks(page.read_text(encoding="utf-8"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
OURS = re.compile(r"\b(?:da_compose|adapters|data_prep|benchmarks)(?:\.[a-z]\w*)+\b(?!\.(?:py|md))")
ALL_PAGES = (*PAGES, ROOT / "CONTRIBUTING.md")
TEXT = """
<!-- run -->
```python
a = 1
```
```python
not marked
```
<!-- run -->
```sh
da-compose --help | head -1
```
<!-- run -->
```python
print(f"{a} page")
```
"""


def test_marked_blocks_are_joined_by_language_and_others_left_alone():
    assert marked_blocks(TEXT) == {
        "python": 'a = 1\n\nprint(f"{a} page")\n',
        "sh": "da-compose --help | head -1\n",
    }


def test_blocks_run_in_a_folder_of_their_own(tmp_path):
    block = "from pathlib import Path\nimport da_compose\nPath('made').touch()"
    assert run_here(RUNNABLE["python"](block), tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_shell_block_finds_the_command_and_stops_at_a_failure(tmp_path):
    ended = run_here(RUNNABLE["sh"]("da-compose --version-of-nothing\ntouch made"), tmp_path)
    assert ended.returncode != 0 and "No such option" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_readme_has_a_block_of_each_language():
    assert set(marked_blocks(PAGES[0].read_text(encoding="utf-8"))) == set(RUNNABLE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_mark_is_without_a_block_that_can_run(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- run -->\n") == len(MARKED.findall(text))
    assert set(marked_blocks(text)) <= set(RUNNABLE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_can_be_parsed(page):
    compile(marked_blocks(page.read_text(encoding="utf-8")).get("python", ""), page.name, "exec")


def test_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_names_of_ours_in_a_page_are_there(page):
    for name in set(OURS.findall(page.read_text(encoding="utf-8"))):
        try:
            resolve_name(name)
        except (ImportError, AttributeError) as error:
            pytest.fail(f"{page.name} names {name}: {error}")


@pytest.mark.shown
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.name)
def test_a_page_runs_as_it_stands(page, tmp_path):
    for language, block in marked_blocks(page.read_text(encoding="utf-8")).items():
        ended = run_here(RUNNABLE[language](block), tmp_path)
        assert ended.returncode == 0, ended.stderr[-4000:]
