"""How docstrings are written here, told to the reference: an extension of griffe.

A line that begins with names of parameters or attributes and a colon begins a paragraph, and a
field without a docstring has the comment that stands behind it.
"""

import re
from typing import Any

import griffe

NAMED = re.compile(r"^(\w+(?:, \w+)*): ", re.MULTILINE)
COMMENT = re.compile(r"  # (?!noqa|type:|pyright)(.+)$")


class Conventions(griffe.Extension):
    """Reads docstrings and comments as they are meant."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        _begin_paragraphs(func, {parameter.name.lstrip("*") for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        _begin_paragraphs(cls, set(cls.members) | {one.name for one in cls.parameters})

    def on_attribute(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        if attr.docstring is not None or attr.lineno is None or attr.lineno != attr.endlineno:
            return
        if found := COMMENT.search(attr.lines_collection[attr.filepath][attr.lineno - 1]):
            attr.docstring = griffe.Docstring(found[1], parent=attr)


def _begin_paragraphs(item: griffe.Object, names: set[str]) -> None:
    def paragraph(match: re.Match[str]) -> str:
        ours = set(match[1].split(", ")) <= names
        return f"\n`{match[1]}`: " if ours else match[0]

    if item.docstring is not None:
        item.docstring.value = NAMED.sub(paragraph, item.docstring.value)
