"""Text from files, names of folders among it, as a terminal and a spreadsheet may have it."""

import csv
import io
import re
import sys
from io import TextIOWrapper

import click

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # not tab and the ends of lines
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet runs begins so


def printable(text: str) -> str:
    """The text with codes that a terminal would obey spelled out, as `\\x1b`."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(line: str) -> None:
    """Print a line."""
    click.echo(printable(line))


def csv_line(path: str, *fields: str) -> str:
    """One line of CSV; a field with a comma, a quote or any sort of line end is quoted.

    No spreadsheet takes a field for a formula: a path begins with `./`, another text with `'`.
    """
    safe = [f"./{path}" if path.startswith(FORMULA) else path]
    safe += [f"'{field}" if field.startswith(FORMULA) else field for field in fields]
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(map(printable, safe))  # ends are quoted
    return line.getvalue().removesuffix("\r\n") + "\n"


def prepare_output() -> None:
    """Let every name be written: a terminal shows what it cannot as codes, a file is UTF-8."""
    if not isinstance(sys.stdout, TextIOWrapper):
        return
    if sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")
    else:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
