"""Files that are either whole or absent."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes the path's place on success only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata to one safetensors file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, {"da_compose": json.dumps(metadata, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}); is the disk full?") from error


def load_tensors(path: Path, *kinds: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `save_tensors` wrote, of one of these `kinds`."""
    with _opened(path, *kinds) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable
    return tensors, metadata


def load_metadata(path: Path, *kinds: str) -> dict[str, Any]:
    """Only the metadata of such a file."""
    with _opened(path, *kinds) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: Path, *kinds: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"no {' or '.join(kinds)} file at {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("da_compose", "{}"))
            if metadata.get("kind") in kinds:
                yield file, metadata
                return
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); it may be cut short, write it again"
        ) from error
    found = metadata.get("kind", "foreign file")
    raise ValueError(f"{path} holds a {found}, expected a {' or '.join(kinds)}")
