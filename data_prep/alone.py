"""A folder that one process at a time writes to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from da_compose.storage.locks import lock


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it against other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor)
        folder.mkdir(exist_ok=True)  # the process before may have removed it
        yield
    finally:
        os.close(descriptor)
