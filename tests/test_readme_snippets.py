"""README and the pages of docs/ are run as they stand."""

import re
import shlex
import sys
from pkgutil import resolve_name

import click
import pytest

from benchmarks.cli.main import main
from tests.snippets import (
    MARKED,
    PAGES,
    ROOT,
    marked_blocks,
    program,
    programs,
    run_here,
    shell_script,
)

RUNNABLE = {
    "python": lambda block: [sys.executable, "-c", block],
    "sh": lambda block: ["bash", "-c", shell_script(block)],
}
PROGRAMS = programs()
COMMAND = re.compile(r"^(?:torchrun .* -m da_compose|da-compose) (.*)$", re.MULTILINE)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OURS = re.compile(r"\b(?:da_compose|adapters|data_prep|benchmarks)(?:\.[a-z]\w*)+\b(?!\.(?:py|md))")


def name_of(page):
    return str(page.relative_to(ROOT))


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
    block = "from pathlib import Path\nimport benchmarks\nPath('made').touch()"
    assert run_here(RUNNABLE["python"](block), tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_shell_block_finds_the_command_and_stops_at_a_failure(tmp_path):
    ended = run_here(RUNNABLE["sh"]("da-compose --version-of-nothing\ntouch made"), tmp_path)
    assert ended.returncode != 0 and "No such option" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_readme_has_a_block_of_each_language():
    assert set(marked_blocks(PAGES[0].read_text(encoding="utf-8"))) == set(RUNNABLE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_mark_is_without_a_block_that_can_run(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- run -->\n") == len(MARKED.findall(text))
    assert set(marked_blocks(text)) <= set(RUNNABLE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_can_be_parsed(page):
    compile(marked_blocks(page.read_text(encoding="utf-8")).get("python", ""), page.name, "exec")


def test_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_names_of_ours_in_a_page_are_there(page):
    for name in set(OURS.findall(page.read_text(encoding="utf-8"))):
        try:
            resolve_name(name)
        except (ImportError, AttributeError) as error:
            pytest.fail(f"{page.name} names {name}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_a_page_have_the_options_that_it_names(page):
    shell = "".join(SHELL.findall(page.read_text(encoding="utf-8")))
    for line in COMMAND.findall(shell):
        name, *words = shlex.split(line.partition(" > ")[0].partition("  #")[0])
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            command = command.commands[words[0]]
        assert command is not None, line
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}, line


@pytest.mark.shown
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_page_runs_as_it_stands(name, tmp_path):
    for language, block in program(*PROGRAMS[name]).items():
        ended = run_here(RUNNABLE[language](block), tmp_path)
        assert ended.returncode == 0, ended.stderr[-4000:]
