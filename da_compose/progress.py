"""What a long call does now, how far it is, and about how long it will take; on standard error.

Silent unless somebody asks: `with show_progress(): ...`. Then each `phase` inside is a bar on a
terminal and in a notebook; where standard error is a file or a pipe, a line now and then.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from typing import IO, Any, Protocol, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from da_compose.parallel import rank

FIRST_LINE, LONGEST_GAP = 10.0, 300.0  # seconds before a phase's first line, and between two
AT_ONCE = 1.0  # seconds in which what was done earlier is reported
# Of a standard error that is closed, full, or another's: no reason to end what is shown on it
UNHEARD = (OSError, ValueError, AttributeError)
MEASURED = 300.0  # last seconds that a bar's remaining time is estimated by


class Phase(Protocol):
    """A part of a long call, of so many things to do."""

    def advance(self, number: int = 1, note: str = "") -> None:
        """So many more are done; note: a few words on how it goes."""
        ...

    def to(self, done: int, note: str = "") -> None:
        """So many are done."""
        ...


class Silent:
    """A phase that nobody watches."""

    def advance(self, number: int = 1, note: str = "") -> None: ...

    def to(self, done: int, note: str = "") -> None: ...


class Lines:
    """A phase as lines, at first after `FIRST_LINE` seconds, then less and less often."""

    def __init__(self, what: str, total: int | None, done: int, counted: bool = True) -> None:
        self.what, self.total, self.begun, self.done, self.note = what, total, done, done, ""
        self.counted = counted
        self.started = self.since = time.monotonic()
        self.due = FIRST_LINE

    def advance(self, number: int = 1, note: str = "") -> None:
        self.to(self.done + number, note)

    def to(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        spent = now - self.started
        if spent < AT_ONCE:
            self.begun, self.since = done, now
        self.done, self.note = done, note or self.note
        if spent >= self.due and done != self.total:
            self.due = spent + min(LONGEST_GAP, max(FIRST_LINE, 0.5 * spent))
            self._say(self._place(spent))

    def end(self) -> None:
        """The last line, where the phase took long enough for any."""
        spent = time.monotonic() - self.started
        if spent >= FIRST_LINE:
            whole = self.total is None or self.done >= self.total
            self._say(f"{'done' if whole else 'ended'} in {duration(spent)}")

    def _place(self, spent: float) -> str:
        if self.total is None:
            return f"{self.done:,} so far" if self.done else f"{duration(spent)} so far"
        place = f"{self.done:,} of {self.total:,}"
        if not self.counted:
            place = f"{100 * self.done / max(1, self.total):.0f} %"
        new, took = self.done - self.begun, time.monotonic() - self.since
        left = f", about {duration(took / new * (self.total - self.done))} left" if new else ""
        return place + left

    def _say(self, text: str) -> None:
        note = f"; {self.note}" if self.note else ""
        with suppress(*UNHEARD):
            print(f"{self.what}: {text}{note}", file=sys.stderr, flush=True)


class Bar:
    """A phase as a line of a display that is drawn again and again."""

    def __init__(self, display: Progress, what: str, total: int | None, done: int) -> None:
        self.display, self.total = display, total
        self.task = display.add_task(what, total=total, completed=done, note="")

    def advance(self, number: int = 1, note: str = "") -> None:
        self._update({"advance": number}, note)

    def to(self, done: int, note: str = "") -> None:
        self._update({"completed": done}, note)

    def _update(self, change: dict[str, Any], note: str) -> None:
        values: dict[str, Any] = change | ({"note": note} if note else {})
        self.display.update(self.task, **values)

    def end(self) -> None:
        """Full, where nobody knew how much there was."""
        if self.total is None:
            self.display.update(self.task, total=1, completed=1)


class Heedless:
    """Standard error, for `rich`; that it is closed or full ends nothing that is shown on it."""

    def __init__(self) -> None:
        self.stream: Any = getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def write(self, text: str) -> int:
        with suppress(*UNHEARD):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*UNHEARD):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def console() -> Console:
    """A console on standard error as it is now."""
    return Console(file=cast(IO[str], Heedless()))


def _is_terminal(stream: Any) -> bool:
    with suppress(*UNHEARD):
        return stream.isatty()
    return False


class Shown:
    """How the phases of one caller are shown: `display` while one of them is a bar."""

    def __init__(self) -> None:
        if console().is_jupyter:
            self.bars = find_spec("ipywidgets") is not None  # which rich needs there
        else:
            self.bars = _is_terminal(sys.stderr) and console().is_interactive
        self.display: Progress | None = None

    @contextmanager
    def bar(self, what: str, total: int | None, done: int) -> Iterator[Bar]:
        """The bar of a phase; those inside another phase vanish when they end."""
        if (display := self.display) is not None:  # another thread's may end before
            bar = Bar(display, what, total, done)
            try:
                yield bar
            finally:
                display.remove_task(bar.task)
            return
        columns: Any = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        options: Any = {
            "console": console(),
            "redirect_stdout": False,  # a file, perhaps, while standard error is a terminal
            "refresh_per_second": 4,
            "speed_estimate_period": MEASURED,
        }
        with Progress(*columns, **options) as display:
            self.display = display
            bar = Bar(display, what, total, done)
            started = time.monotonic()
            try:
                yield bar
                bar.end()
            finally:
                if display.console.is_jupyter:  # where rich leaves out the last state
                    display.refresh()
                display.live.transient = time.monotonic() - started < AT_ONCE
                self.display = None

    @contextmanager
    def lines(self, what: str, total: int | None, done: int, counted: bool) -> Iterator[Lines]:
        """The lines of a phase."""
        found = Lines(what, total, done, counted)
        try:
            yield found
        finally:
            found.end()


OFF = Shown()
_shown: ContextVar[Shown | None] = ContextVar("shown", default=None)


@contextmanager
def show_progress(on: bool = True) -> Iterator[None]:
    """Show the progress of all long calls inside, in this thread; on=False: of none.

    Bars on a terminal and in a notebook (with ipywidgets), else a line now and then, on standard
    error. Who asks for none is heeded inside too.
    """
    before = _shown.set((_shown.get() or Shown()) if on else OFF)
    try:
        yield
    finally:
        _shown.reset(before)


@contextmanager
def phase(
    what: str, total: int | None = None, done: int = 0, *, counted: bool = True
) -> Iterator[Phase]:
    """A part of a long call, of `total` things to do, `done` of them earlier.

    counted: whether their number says something; else percent are shown.
    """
    shown = _shown.get()
    if shown in (None, OFF) or rank() > 0:
        yield Silent()
        return
    made = shown.bar(what, total, done) if shown.bars else shown.lines(what, total, done, counted)
    with made as found:
        yield found


def remark(text: Any) -> None:
    """Print a line, or whatever rich prints, among the progress; nothing where none is shown."""
    shown = _shown.get()
    if shown in (None, OFF) or rank() > 0:
        return
    on = console() if (display := shown.display) is None else display.console
    on.print(text, markup=False, highlight=False, soft_wrap=isinstance(text, str))


def duration(seconds: float) -> str:
    """About how long, in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
