"""What is shown of long calls: bars on a terminal, else a few lines, on standard error."""

import os
import pty
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from da_compose import progress
from da_compose.progress import duration, phase, remark, show_progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when told to."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def take(clock, steps: int, seconds: float, done: int = 0) -> None:
    with phase("learning", steps, done) as learning:
        for _ in range(steps - done):
            clock[0] += seconds
            learning.advance(note="loss 1.5")


def test_nothing_is_shown_unless_asked_for_nor_inside_what_is_quiet(clock, capsys):
    take(clock, 20, 5)
    with show_progress(False), show_progress():
        take(clock, 20, 5)
        remark("a line")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_few_lines_with_place_time_left_and_note(clock, capsys):
    with show_progress():
        take(clock, 1000, 1)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and 8 < len(lines) < 20
    assert lines[0] == "learning: 10 of 1,000, about 16 min left; loss 1.5"
    assert lines[-1] == "learning: done in 17 min; loss 1.5"


def test_a_short_phase_says_nothing_in_a_pipe(clock, capsys):
    with show_progress():
        take(clock, 9, 1)
        remark("[x] written")
    assert capsys.readouterr().err == "[x] written\n"


def test_what_was_done_earlier_does_not_shorten_the_time_left(clock, capsys):
    with show_progress(), phase("preparing", 1000) as preparing:
        preparing.advance(900)  # by an interrupted call
        for _ in range(20):
            clock[0] += 1
            preparing.advance(1)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "preparing: 910 of 1,000, about 2 min left" and "ended in 20 s" in last


class Full(StringIO):
    """A standard error that takes nothing, be it a terminal or a file."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def write(self, s: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.write("")


class Gone(Full):
    """A terminal that was closed."""

    terminal = True


@pytest.mark.parametrize(
    "stream", [None, Full(), Gone(), object()], ids=["none", "full", "gone", "no file"]
)
def test_a_standard_error_that_takes_nothing_ends_no_work(clock, monkeypatch, stream: Any):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.sys, "stderr", stream)
    with show_progress():
        take(clock, 20, 5)
        remark("a line")
    assert clock == [100.0]  # all steps were taken
    assert progress.Shown().display is None  # as importing makes one


def test_phases_of_threads_may_end_in_any_order(monkeypatch):
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with show_progress():
        outer, inner = phase("first", 2), phase("second", 2)
        outer.__enter__()
        last = inner.__enter__()
        outer.__exit__(None, None, None)
        last.advance(2, note="later")
        inner.__exit__(None, None, None)
        remark("after both")
    assert "first" in terminal.getvalue() and "after both" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(4, "4 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations_are_in_words(seconds, words):
    assert duration(seconds) == words


SCRIPT = """
from da_compose.progress import phase, remark, show_progress
with show_progress():
    with phase("all [things]", 2) as outer:
        with phase("inner"):
            remark("[row] 93 %")
        outer.advance(2, note="note [1]")
print("result")
"""


def test_a_terminal_gets_bars_and_a_redirected_output_stays_clean():
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}, check=True,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert ended.stdout == b"result\n"
    for text in ("all [things]", "inner", "[row] 93 %", "note [1]", "100 %"):
        assert text in shown


def test_a_notebooks_bar_ends_full(monkeypatch):
    drawn: list[float] = []
    monkeypatch.setattr(progress, "Console", lambda **_: Console(force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", lambda name: name == "ipywidgets")
    monkeypatch.setattr("rich.live.Live.refresh", lambda live: None)
    monkeypatch.setattr(
        progress.Progress, "refresh", lambda self: drawn.append(self.tasks[0].percentage)
    )
    with show_progress(), phase("learning", 3) as learning:
        learning.to(3)
    assert drawn[-1] == 100
