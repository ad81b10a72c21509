"""Options as callers give them: whole numbers of any kind, devices."""

from operator import index
from typing import Any

import torch


def whole(name: str, value: Any, least: int = 0) -> int:
    """An option as an int, which notes can hold; ValueError where it is none of at least `least`.

    Those of numpy are taken, True and 2.0 are not.
    """
    try:
        found = None if isinstance(value, bool) else index(value)
    except TypeError:
        found = None
    if found is None:
        raise ValueError(f"{name} must be an int, got {value!r}")
    if found < least:
        raise ValueError(f"{name} must be at least {least}, got {found}")
    if found >= 2**63:
        raise ValueError(f"{name} must be below 2^63, got {found}")
    return found


def make_whole(config: object, **least: int) -> None:
    """Make options of a frozen configuration ints of at least so much, as `whole` has it."""
    for name, value in least.items():
        object.__setattr__(config, name, whole(name, getattr(config, name), value))


def check_device(device: str | torch.device) -> None:
    """Raise ValueError where a device cannot be used here."""
    try:
        torch.empty(0, device=device).cpu()  # a meta tensor holds nothing to copy
    except (RuntimeError, AssertionError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"device {str(device)!r} cannot be used here ({first}); try cpu"
        ) from error
