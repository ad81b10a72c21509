"""What a caller has switched on in torch, left out of what is computed here."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ordinary tensors, gradients and float32, whatever the caller's context; it stays as it was.

    Without it an adaptation ends in an error under `no_grad`, what is loaded under `inference_mode`
    cannot be adapted later, and `autocast` changes predictions and files. A decorator, too.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield
