"""Fenced blocks of Markdown pages that are marked to run, by `<!-- run -->` in the line before."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
GUIDES = ROOT / "docs" / "guides"
FIRST_GUIDE = GUIDES / "python.md"  # makes what blocks of the others go on from
MARKED = re.compile(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def marked_blocks(text: str) -> dict[str, str]:
    """Language -> its marked blocks joined, in the order of the languages."""
    found: dict[str, list[str]] = {}
    for language, block in MARKED.findall(text):
        found.setdefault(language, []).append(block)
    return {language: "\n".join(blocks) for language, blocks in found.items()}


def program(*pages: Path) -> dict[str, str]:
    """The marked blocks of pages that are run as one, by language."""
    return marked_blocks("\n".join(page.read_text(encoding="utf-8") for page in pages))


def programs() -> dict[str, tuple[Path, ...]]:
    """What is run as one, by name: a page, or all guides."""
    guides = [page for page in PAGES if page.is_relative_to(GUIDES) and page != FIRST_GUIDE]
    alone = [page for page in PAGES if not page.is_relative_to(GUIDES) and program(page)]
    return {page.name: (page,) for page in alone} | {"guides": (FIRST_GUIDE, *guides)}


def shell_script(block: str) -> str:
    """A shell block that stops at a failure and finds `da-compose` in this Python."""
    command = f'{shlex.quote(sys.executable)} -m da_compose "$@"'
    return f"set -euo pipefail\nda-compose() {{ {command}; }}\n{block}"


def run_here(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in a folder, with this checkout in front of whatever is installed; output is text."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
