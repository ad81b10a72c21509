"""Files that are either whole or absent."""

import hashlib
import json
import os
import secrets
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from da_compose.storage.schema import check_values, parse, short

LONGEST = 200  # bytes of a temporary file's name, before its ending
CHECKSUM = "checksum"  # in the metadata
# What zipfile and numpy raise on an .npz that is damaged, locked or promises too much
BROKEN_ARCHIVE = (OSError, EOFError, ValueError, LookupError, ArithmeticError, MemoryError,
                  RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)  # fmt: skip


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes the path's place on success only.

    Where `path` is a link, in the place of what it leads to; the mode of a file that is there
    stays. Temporary files that a killed process left there are removed.
    """
    check_replaceable(path)
    real = path.resolve()
    real.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{real.name}"
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    for left in real.parent.glob(f"{escape(stem)}.{'[0-9a-f]' * 8}"):
        _sweep(left)
    with naming(path), _held_beside(real, stem) as file:
        temporary = Path(file.name)
        try:
            mode = os.fstat(file.fileno()).st_mode
            yield temporary
            temporary.chmod(real.stat().st_mode if real.exists() else mode)
            temporary.replace(real)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """An error of writing, which knows its reason alone, names what was written to."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def _held_beside(real: Path, stem: str) -> BinaryIO:
    """A new file, locked as long as it is open: nobody else's start sweeps it."""
    while True:
        file = real.with_name(f"{stem}.{secrets.token_hex(4)}").open("xb")
        _lock(file, wait=True)
        if Path(file.name).exists():  # not swept between the two lines above
            return file
        file.close()


def _sweep(left: Path) -> None:
    """Remove a temporary file that no living process holds."""
    with suppress(OSError), left.open("r+b") as file:
        if _lock(file, wait=False):
            left.unlink()


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Whether the file is held now, until it is closed; there are disks that cannot lock."""
    try:
        import fcntl  # Windows, which lacks it, is refused by the command line
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_replaceable(path: Path) -> None:
    """Raise OSError where `path` is something that no file may take the place of, or too long."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        path.lstat()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected the path of a file to write")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is a device or pipe, expected the path of a file to write")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is read-only; make it writable, or name another file")


def check_readable_name(path: Path) -> None:
    """Raise ValueError where safetensors could write `path`, but not read it."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8, which safetensors needs; rename it") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata to one safetensors file, atomically, with a checksum.

    Raises ValueError, and writes nothing, where a number is not finite: no file could be read.
    """
    check_readable_name(path)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        check_values(contiguous)
    except ValueError as error:
        raise ValueError(
            f"{path} is not written: {error}; the training diverged, take a lower learning rate"
        ) from error
    read_back = parse(json.dumps(metadata, default=_plainly))
    summed = json.dumps({**read_back, CHECKSUM: checksum(contiguous, read_back)}, sort_keys=True)
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, {"da_compose": summed})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}); is the disk full?") from error


def _plainly(value: Any) -> Any:
    """Of notes what JSON cannot hold: numbers of numpy or torch as numbers, others in words."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def load_tensors(path: Path, *kinds: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `save_tensors` wrote, of one of these `kinds`.

    Raises ValueError where it is not as it was written, or a number is not finite. Files of before
    format 2 may have no checksum to tell by; a warning says so.
    """
    with _opened(path, *kinds) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable
    older = CHECKSUM not in metadata and "format" not in metadata
    written = metadata.pop(CHECKSUM, None)
    if not older and written != checksum(tensors, metadata):
        raise ValueError(
            f"{path} was changed after it was written: its checksum differs; write it again"
        )
    with understood(path):
        check_values(tensors)
    if older:
        warnings.warn(
            f"{path} has no checksum: it is of an early version, and was perhaps changed since; "
            "what can be checked without is right",
            stacklevel=3,
        )
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Hash of contiguous tensors on the CPU, their names, and metadata that JSON can hold."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """What of a file is missing or does not fit is said in a ValueError of one line, by name."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RuntimeError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # as it says
        said = short(" ".join(str(error).split()), 300)
        raise ValueError(
            f"{path} is damaged, or of another version of da-compose ({said}); write it again"
        ) from error


def kind_of(path: Path) -> str | None:
    """What a file of `save_tensors` holds; None of any other, or where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return parse((file.metadata() or {}).get("da_compose", "{}")).get("kind")
    except (OSError, ValueError, SafetensorError):
        return None


def load_metadata(path: Path, *kinds: str) -> dict[str, Any]:
    """Only the metadata of such a file."""
    with _opened(path, *kinds) as (_, metadata):
        return {name: value for name, value in metadata.items() if name != CHECKSUM}


@contextmanager
def _opened(path: Path, *kinds: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"no {' or '.join(kinds)} file at {path}; check the path")
    check_readable_name(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse((file.metadata() or {}).get("da_compose", "{}"))
            if metadata.get("kind") in kinds:
                yield file, metadata
                return
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); it may be cut short, write it again"
        ) from error
    found = short(metadata.get("kind", "foreign file"))
    raise ValueError(f"{path} holds {_a(found)}, expected {_a(' or '.join(kinds))}")


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
