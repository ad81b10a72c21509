"""Places to write to, looked at before any work."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from da_compose.parallel import rank
from da_compose.pictures import PICTURES
from da_compose.storage.files import check_readable_name, check_replaceable
from da_compose.training.run import STATE


def check_output(path: Path, *inputs: Path) -> None:
    """Raise, before any work, where the file `path` cannot be written or is one of the inputs."""
    check_replaceable(path)
    check_readable_name(path)
    if path.suffix.lower() in {*PICTURES, ".npz"}:  # it could be one that a folder is read for
        raise ValueError(f"{path} has the name of a picture or .npz file; name another to write")
    if path.exists() and any(other.exists() and path.samefile(other) for other in inputs):
        raise ValueError(f"{path} is read by this command; name another file to write")
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Raise OSError where `path` neither is nor can become a folder to write to."""
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{place} is a file, expected a folder; choose another path")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written to; choose another path")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Where ctrl-C leaves a state to go on from in the folder, say so."""
    try:
        yield
    except KeyboardInterrupt:
        if rank() == 0 and (folder / STATE).exists():
            click.echo("interrupted: the same command goes on from what was saved", err=True)
        raise
