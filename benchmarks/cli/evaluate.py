"""The command `da-compose evaluate`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from adapters import Adaptation
from benchmarks.cli.task_actions import task_name
from benchmarks.cli.text import say
from benchmarks.harness.chosen_model import chosen_model
from benchmarks.options import (
    NAME_OR_PATH,
    PATH,
    backbone_option,
    data_option,
    json_option,
    quiet_option,
)
from da_compose import Backbone, load_backbone, probabilities
from da_compose.archives import read_array
from da_compose.estimate import Estimate
from da_compose.images import ImageSet
from da_compose.inference import predict_logits
from da_compose.reading import read_archive, read_pictures
from da_compose.trees import read_tree
from data_prep import load_task, task_classes


@click.command()
@backbone_option
@click.option(
    "--adapter",
    type=PATH,
    help="Adapter file. [default: the plain source-only model; of trained tasks, the --domain's]",
)
@click.option(
    "--domain",
    required=True,
    type=NAME_OR_PATH,
    help="A digit domain or task, or a labelled .npz file or folder <class>/<picture>.",
)
@data_option
@json_option
@quiet_option
def evaluate(
    backbone: Path, adapter: Path | None, domain: str, data_root: Path | None, as_json: bool
) -> None:
    """Accuracy on the test split of a labelled domain, or on a whole folder, in all and by class.

    Example: da-compose evaluate --backbone backbone.safetensors --adapter usps.safetensors
    --domain usps
    """
    found = evaluation(load_backbone(backbone), adapter, domain, data_root)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for line in said(found):
        say(line)


def said(found: dict[str, Any]) -> Iterator[str]:
    """An evaluation in lines: accuracy in all, then class by class."""
    kind = "pictures of the folder" if found["folder"] else "test images"
    yield f"accuracy {100 * found['accuracy']:.2f} % of {found['images']:,} {kind}"
    if found["estimate"] is not None:
        yield f"estimated without labels when it was adapted: {Estimate(**found['estimate'])}"
    for name, part in found["classes"].items():
        yield f"  class {name}: {100 * part['accuracy']:.2f} % of {part['images']:,}"


def evaluation(
    backbone: Backbone, adapter: Path | None, domain: str, data_root: Path | None
) -> dict[str, Any]:
    """Accuracy on a test split, in all and class by class: shares, by keys of `--json`."""
    own = task_name(domain)
    is_own = not backbone.knowledge and own in backbone.network.domains
    model = chosen_model(backbone, adapter, own if is_own and adapter is None else None)
    chosen = model.domain
    names, size = backbone.class_names_of(chosen), backbone.network.config.image_size
    test = labelled_test_split(domain, names, size, data_root)
    if not 0 <= test.labels.min() <= test.labels.max() < len(names):
        raise ValueError(
            f"labels of {domain} must be in 0..{len(names) - 1}, the model's classes, "
            f"got {test.labels.min()}..{test.labels.max()}"
        )
    backbone.doubt_range(test.images)
    logits = predict_logits(backbone.network, chosen, test.images)
    right = probabilities(logits).argmax(dim=1).numpy() == test.labels
    estimate = model.estimate if isinstance(model, Adaptation) else None
    of_class = {names[label]: right[test.labels == label] for label in np.unique(test.labels)}
    return {
        "domain": domain,
        "folder": Path(domain).is_dir(),
        "images": len(test),
        "accuracy": float(right.mean()),
        "estimate": None if estimate is None else asdict(estimate),
        "classes": {
            name: {"images": len(part), "accuracy": float(part.mean())}
            for name, part in of_class.items()
        },
    }


def labelled_test_split(
    domain: str, class_names: tuple[str, ...], size: int, data_root: Path | None
) -> ImageSet:
    """Test split of a digit domain or task by name, or of an `.npz` with test_images, test_labels.

    Or all readable pictures of a folder <class>/<picture>. Its classes are `class_names`, as are
    those of a name.
    """
    path = Path(domain)
    try:
        known = task_classes(domain)
    except ValueError as error:
        if path.is_dir():
            return _labelled_pictures(path, class_names, size)
        if path.suffix == ".npz" and path.is_file():
            return _labelled_archive(path, size)
        raise ValueError(f"{error}, and no .npz file or folder <class>/<picture>") from error
    if known != class_names:
        raise ValueError(
            f"{domain} has the classes {', '.join(known)}, the model has {', '.join(class_names)}; "
            "evaluate it on images of these"
        )
    return load_task(domain, data_root=data_root, size=size).test


def _labelled_pictures(folder: Path, class_names: tuple[str, ...], size: int) -> ImageSet:
    pictures, _ = read_tree(folder, class_names)
    images, kept = read_pictures(pictures.paths, size)
    label = dict(zip(pictures.paths, pictures.labels, strict=True))
    return ImageSet(images, np.array([label[file] for file in kept], dtype=np.int64))


def _labelled_archive(path: Path, size: int) -> ImageSet:
    labels = read_array(path, "test_labels")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels in {path} must be whole numbers, got {labels.dtype}")
    return ImageSet(read_archive(path, size, "test_images"), labels.astype(np.int64))
