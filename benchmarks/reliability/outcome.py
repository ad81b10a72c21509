"""How a trial ends: right, refused clearly, or wrong."""

from dataclasses import dataclass

RIGHT, REFUSED, WRONG = VERDICTS = ("right", "refused", "wrong")
SHOWN = 300  # characters of what was said


@dataclass(frozen=True)
class Outcome:
    """The verdict on one trial; `said` is the line that refused it, or what was wrong."""

    verdict: str
    said: str = ""


class Wrong(Exception):
    """What a trial found that must not be; its message says so."""


def refusal(error: BaseException, *names: object) -> str:
    """What a refusal says; Wrong where it is none: one line of a ValueError or OSError.

    names: of these the line has to name one, where there are any.
    """
    said = str(error)
    named = not names or any(str(name) in said for name in names)
    if isinstance(error, (ValueError, OSError)) and said.strip() and "\n" not in said and named:
        return said
    lacks = "" if named else " that names the file"
    raise Wrong(f"not one clear line{lacks}: {type(error).__name__}: {said}") from error


def refused_command(code: int, errors: str, *names: object) -> str:
    """The line `Error: ...` in which a command ended; Wrong where it did not, or names none."""
    lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
    if "Traceback" in errors:
        raise Wrong(f"a traceback: {shortened(errors[errors.index('Traceback') :], last=True)}")
    if code <= 0 or len(lines) != 1 or errors.splitlines()[-1] != lines[0]:
        raise Wrong(f"ended with {code}, not in one line: {shortened(errors, last=True)}")
    if names and not any(str(name) in lines[0] for name in names):
        raise Wrong(f"the error does not name a file: {shortened(lines[0])}")
    return lines[0]


def shortened(text: str, *, last: bool = False) -> str:
    """At most `SHOWN` characters in one line: the first, or the last."""
    line = " | ".join(text.split("\n")).strip(" |")
    return line[-SHOWN:] if last else line[:SHOWN]
