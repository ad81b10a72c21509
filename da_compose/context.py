"""What a caller has switched on in torch, left out of what is computed here, and left alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ordinary tensors, gradients and float32, whatever the caller's context; it stays as it was.

    Without it an adaptation ends in an error under `no_grad` or a default device, what is loaded
    under `inference_mode` cannot be adapted later, and `autocast` changes predictions and files. A
    decorator, too.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(Float32())
        yield


class Float32(TorchFunctionMode):
    """Inside, in this thread: new floats are float32, whatever the default of the process."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = {**(kwargs or {})}
        if func in FLOATS and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        made = func(*args, **kwargs)
        numbers = func is torch.tensor and args and isinstance(args[0], (float, list, tuple))
        return made.float() if numbers and made.dtype == torch.get_default_dtype() else made


class Drawing(Float32):
    """Inside, in this thread: random draws are of one seed, new floats float32.

    Where torch itself is given no generator, as by `nn.Linear`: the global one, which belongs to
    the caller and to other threads, is left alone. The numbers are those of the global one after
    `torch.manual_seed(seed)`.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = {**(kwargs or {})}
        if func in DRAWS and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return super().__torch_function__(func, types, args, kwargs)


FLOATS = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.linspace}
DRAWS = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli,
    torch.multinomial, torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.bernoulli_,
    torch.Tensor.random_, torch.Tensor.exponential_, torch.Tensor.log_normal_,
    *(f for name, f in vars(nn.init).items()
      if name.endswith("_") and callable(f) and "generator" in signature(f).parameters),
}  # fmt: skip
