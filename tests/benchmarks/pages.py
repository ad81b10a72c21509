"""HTML reports, read."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.reports import html

VOID = {"meta", "img", "br"}


@dataclass
class Page(HTMLParser):
    """A page that was parsed: text by heading; and images; refused where tags are not balanced."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    section: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.section = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "h2":
            self.section = data
        elif inside != "style":
            self.text[self.section] = self.text.get(self.section, "") + data + "|"

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


def skip_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots in reports: they are slow."""
    monkeypatch.setattr(html, "plot_mixtures", lambda mixtures, path: path.write_bytes(b""))
    monkeypatch.setattr(html, "curve", lambda *_: "")
