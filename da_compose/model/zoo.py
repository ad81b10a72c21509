"""Ordinary networks by name, of timm and torchvision: imported only when one is asked for."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

from da_compose.context import Drawing

Numbers = tuple[float, ...]
EXAMPLE = "timm:tf_efficientnet_lite0"


class Published(NamedTuple):
    """Pixels' mean and deviation that a network's published weights expect, in [0, 1]."""

    mean: Numbers
    std: Numbers


def build_module(name: str, image_size: int) -> nn.Module:
    """The module that a name such as `timm:tf_efficientnet_lite0` stands for, of random weights.

    The global random state stays as it is. Raises ValueError for an unknown name, or where timm is
    not installed.
    """
    library, model = split_name(name)
    with Drawing(0):
        if library == "torchvision":
            return _torchvision().get_model(model, weights=None)
        return timm().create_model(model, pretrained=False, **timm_options(model, image_size))


def published(name: str) -> Published:
    """What the weights of a name expect."""
    library, model = split_name(name)
    if library == "torchvision":
        transforms = _torchvision().get_model_weights(model)["DEFAULT"].transforms()
        return Published(tuple(transforms.mean), tuple(transforms.std))
    given = timm().get_pretrained_cfg(model)
    return Published(tuple(given.mean), tuple(given.std))


def timm_options(model: str, image_size: int) -> dict[str, Any]:
    """Of networks that are made for one size of images: this one."""
    fixed = timm().get_pretrained_cfg(model).fixed_input_size
    return {"img_size": image_size} if fixed else {}


def split_name(name: str) -> tuple[str, str]:
    """Library and model; ValueError where there is no such."""
    library, _, model = name.partition(":")
    if library not in KNOWN or not model:
        raise ValueError(
            f"no network {name!r}; expected {' or '.join(f'{one}:NAME' for one in KNOWN)}, "
            f"such as {EXAMPLE}"
        )
    known = KNOWN[library]()
    if model.partition(".")[0] not in known:
        close = get_close_matches(model, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise ValueError(f"{library} has no network {model!r}{hint}")
    return library, model


def timm() -> Any:
    """The package, of the extra `pictures`; ValueError where it is missing."""
    try:
        return import_module("timm.models")
    except ImportError as error:
        raise ValueError(
            f"networks of timm need it ({error}): pip install 'da-compose[pictures]', "
            "or take one of torchvision:NAME"
        ) from error


def _torchvision() -> Any:
    return import_module("torchvision.models")  # takes seconds


KNOWN: Mapping[str, Callable[[], list[str]]] = {
    "timm": lambda: timm().list_models(),
    "torchvision": lambda: _torchvision().list_models(module=_torchvision()),
}
