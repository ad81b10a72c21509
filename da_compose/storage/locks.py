"""Locks of files and folders, which keep processes from writing the same one at once."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from da_compose.parallel import rank

try:
    import fcntl
except ImportError as error:
    raise ImportError(
        "da-compose locks files as Linux and macOS do, and does not run on Windows itself; run it "
        "there in WSL, the Windows Subsystem for Linux"
    ) from error


LONGEST = 200  # bytes of a name


class File(Protocol):
    """What an open file has."""

    def fileno(self) -> int: ...


def lock(file: File | int, *, wait: bool = True) -> None:
    """Hold an open file or folder until it is closed.

    Waits while another process holds it, or raises BlockingIOError.
    """
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(path: Path, *, folder: bool = True) -> Iterator[None]:
    """Hold a folder, which is made, or a file that is to be written; ValueError where another does.

    A file is held by one beside it, `.NAME.lock`, which is gone afterwards, as is a folder that was
    made and stayed empty. Of processes that train together the first one holds it. The system lets
    go of what a killed process held.
    """
    if rank() > 0:
        yield
        return
    held = path if folder else path.with_name(f".{_short(path.name)}.lock")
    place = held if folder else held.parent
    made = [one for one in (place, *place.parents) if not one.exists()]
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(held, os.O_RDONLY if folder else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        _hold(descriptor, held, path)
        try:
            yield
        finally:
            if not folder:
                held.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
        with suppress(OSError):  # something is in it
            for one in made:
                one.rmdir()


def _short(name: str) -> str:
    """The name, or of a long one its hash: a lock's name is longer than its file's may be."""
    long = len(os.fsencode(name)) > LONGEST
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16] if long else name


def _hold(descriptor: int, held: Path, path: Path) -> None:
    """Lock what is open and still there; ValueError where another process has it."""
    try:
        lock(descriptor, wait=False)
        if held.exists() and os.path.samestat(held.stat(), os.fstat(descriptor)):
            return
    except BlockingIOError:
        pass
    raise ValueError(
        f"another run writes to {path} now; wait until it has ended, or name another place"
    )
