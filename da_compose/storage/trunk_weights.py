"""Weights of a frozen trunk: from a file, a state dict, or torchvision's download."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from da_compose.model.network import CompositionalNetwork
from da_compose.model.trunk import Trunk
from da_compose.storage.schema import check_values

DOWNLOAD = "download"


def load_trunk_weights(
    network: CompositionalNetwork, weights: str | Path | Mapping[str, Tensor]
) -> None:
    """Give the network's trunk its weights, before pretraining: all that follows depends on them.

    weights: a .safetensors file or a state dict with torchvision's names, or `download` for the
    default weights that torchvision publishes for this model. What belongs to later modules, such
    as the classifier, is ignored. Raises ValueError where names or shapes are not the trunk's, and
    changes nothing then; OSError where the file cannot be had.
    """
    trunk = network.trunk
    if not isinstance(trunk, Trunk):
        raise ValueError("this network has no trunk; make one with NetworkConfig(trunk=...)")
    if isinstance(weights, Mapping):
        given = weights
    else:
        given = (
            download_weights(trunk.model_name)
            if weights == DOWNLOAD
            else read_weights(Path(weights))
        )
    own = trunk.model.state_dict()
    later = _parts(trunk.whole_names) - _parts(own)
    wrong = {
        # Files older than PyTorch 0.4.1 lack the count of batches, which nothing reads
        "missing": [n for n in own if n not in given and not n.endswith("num_batches_tracked")],
        "unexpected": [n for n in given if n not in trunk.whole_names and not _parts([n]) & later],
        "of another shape": [n for n in own if n in given and given[n].shape != own[n].shape],
    }
    if any(wrong.values()):
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
        raise ValueError(f"weights are not those of torchvision's {trunk.model_name}: {found}")
    taken = {name: given[name] for name in own if name in given}
    try:
        check_values(taken)
    except ValueError as error:
        raise ValueError(f"weights of {trunk.model_name} are damaged: {error}") from error
    trunk.model.load_state_dict(taken, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file of weights."""
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} must be a .safetensors file; write a .pth file as one, once: "
            "safetensors.torch.save_file(torch.load(PTH, weights_only=True), SAFETENSORS)"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {path}; check the path")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error})") from error


def download_weights(model_name: str) -> dict[str, Tensor]:
    """The default weights that torchvision publishes for a model."""
    from torchvision import models

    published = models.get_model_weights(model_name)["DEFAULT"]
    try:
        weights = published.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or not what was published
        raise OSError(
            f"could not download {published.url} ({error}); give a .safetensors file"
        ) from error
    # DenseNet's files have names of before PyTorch 0.4, `denselayer1.norm.1`
    return {re.sub(r"(denselayer\d+\.[a-z]+)\.(?=\d)", r"\1", n): v for n, v in weights.items()}


def _parts(names: Iterable[str]) -> set[str]:
    """The children of a model that hold these tensors."""
    return {name.split(".")[0] for name in names}
