"""What the documentation site takes from the repository: linked files, README, names, commands.

Pages link to files of the repository as they lie. Of those outside of docs/ the site has a copy in
`repository/`, and links lead there. A line `<!-- site: ... -->` stands for a part that is made:
`section FILE HEADING`, `names PACKAGE` or `commands`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COPIES = "repository"
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/LOG.md")  # pages, linked to or not
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")
MADE = re.compile(r"^<!-- site: (\w+) ?(.*) -->$", re.MULTILINE)
LIST_AFTER_TEXT = re.compile(r"^([^\s#>|<-][^\n]*)\n(?=- )", re.MULTILINE)
WIDTH = 88  # of commands' help


def on_files(files: Any, config: Any) -> Any:
    """Add a copy of each file outside of docs/ that a page links to, and of what those link to."""
    from mkdocs.structure.files import File

    waiting = [ROOT / name for name in ALWAYS]
    for path in DOCS.rglob("*.md"):
        waiting += targets(path.read_text(encoding="utf-8"), path)
    waiting += targets((ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "README.md")
    copied: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in copied or path.is_relative_to(DOCS) or path == ROOT / "README.md":
            continue
        copied.add(path)
        if (text := page_of(path)) is None:
            files.append(File.generated(config, uri(path), abs_src_path=str(path)))
        else:
            files.append(File.generated(config, uri(path), content=text))
            waiting += targets(text, path / "index.md" if path.is_dir() else path)
    return files


def page_of(path: Path) -> str | None:
    """The Markdown page that shows a file or a folder; None: it is a file to fetch."""
    name = path.relative_to(ROOT)
    if path.is_dir():
        inside = sorted(one for one in path.iterdir() if one.name[0] not in "._")
        lines = [f"- [{one.name}]({one.name}{'/' if one.is_dir() else ''})" for one in inside]
        plots = [f"![{one.stem}]({one.name})" for one in inside if one.suffix == ".png"]
        return "\n\n".join([f"# {name}", "\n".join(lines), *plots])
    if path.suffix == ".py":
        return f"# {name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
    if path.suffix != ".md":
        return None
    text = path.read_text(encoding="utf-8")
    return text if text.startswith("# ") else f"# {name}\n\n{text}"


def uri(path: Path) -> str:
    """Where the site has a file of the repository."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    place = f"{COPIES}/{path.relative_to(ROOT).as_posix()}"
    return f"{place}/index.md" if path.is_dir() else f"{place}.md" * (path.suffix == ".py") or place


def targets(text: str, source: Path) -> list[Path]:
    """Files and folders that a page links to."""
    found = [(source.parent / target).resolve() for target, _ in LINK.findall(text)]
    return [path for path in found if path.exists()]


def moved(text: str, source: Path, page: str) -> str:
    """The text of a file with its links leading, from a page of the site, to the site's files."""

    def link(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        if not target.exists():
            return match[0]
        return f"]({relpath(uri(target), Path(page).parent)}{match[2] or ''})"

    return LINK.sub(link, text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to the site's copies, and put in what is made."""
    place = page.file.src_uri
    source = DOCS / place
    if place.startswith(f"{COPIES}/"):
        source = ROOT / place.removeprefix(f"{COPIES}/")
    parts = {"section": section, "names": names, "commands": commands}

    def made(match: re.Match[str]) -> str:
        return "\n\n".join(parts[match[1]](place, *match[2].split(maxsplit=1)))

    return LIST_AFTER_TEXT.sub(r"\1\n\n", MADE.sub(made, moved(markdown, source, place)))


def section(place: str, name: str, heading: str) -> Iterator[str]:
    """What stands under a heading of a file, without it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    _, _, found = text.partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"{name} has no heading {heading!r}, which {place} asks for")
    yield moved(found.partition("\n## ")[0].strip(), ROOT / name, place)


def names(place: str, package: str) -> Iterator[str]:
    """Every public name of a package, documented where it is from: a module may have its name."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    origin = {alias.name: node.module for node in imports for alias in node.names}
    for name in sorted(origin, key=str.lower):
        yield f"::: {origin[name]}.{name}"


def commands(place: str) -> Iterator[str]:
    """The help of every command."""
    sys.path.insert(0, str(ROOT))
    import click

    from benchmarks.cli.main import main

    top = click.Context(
        main, info_name="da-compose", max_content_width=WIDTH, terminal_width=WIDTH,
        **main.context_settings,
    )  # fmt: skip
    for name in main.list_commands(top):
        if (command := main.get_command(top, name)) is not None:
            yield from helps(command, click.Context(command, parent=top, info_name=name))


def helps(command: Any, context: Any) -> Iterator[str]:
    """The help of a command, and of those below it."""
    text = "\n".join(map(wrapped, command.get_help(context).splitlines()))
    yield f"## {context.command_path}\n\n```text\n{text}\n```"
    for name, below in getattr(command, "commands", {}).items():
        yield from helps(below, type(context)(below, parent=context, info_name=name))


def wrapped(line: str) -> str:
    """A line of help with its choices, which click writes on one, on as many as they need."""
    if len(line) <= WIDTH or "|" not in line:
        return line
    place = line.index("[") + 1
    lines = fill(line[place:].replace("|", "| "), WIDTH - place).splitlines()
    return line[:place] + f"\n{' ' * place}".join(part.replace("| ", "|") for part in lines)
