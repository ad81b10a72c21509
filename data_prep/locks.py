"""Locks of files and folders, which keep processes from writing the same one at once."""

from typing import Protocol

try:
    import fcntl
except ImportError as error:
    raise ImportError(
        "da-compose locks files as Linux and macOS do, and does not run on Windows itself; run it "
        "there in WSL, the Windows Subsystem for Linux"
    ) from error


class File(Protocol):
    """What an open file has."""

    def fileno(self) -> int: ...


def lock(file: File | int, *, wait: bool = True) -> None:
    """Hold an open file or folder until it is closed.

    Waits while another process holds it, or raises BlockingIOError.
    """
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
