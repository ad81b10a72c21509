"""The command `da-compose predict`."""

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from benchmarks.cli.text import csv_line
from benchmarks.harness.chosen_model import chosen_model
from benchmarks.options import PATH, backbone_option
from da_compose import load_backbone, probabilities
from da_compose.archives import is_archive
from da_compose.folders import list_pictures
from da_compose.inference import DomainModel, predict_logits
from da_compose.reading import picture_batches, read_images
from da_compose.storage.files import naming

PICTURES_AT_ONCE = 512


@click.command()
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", help="A domain or task of the backbone, in place of --adapter.")
@click.argument("images", type=PATH)
def predict(backbone: Path, adapter: Path | None, domain: str | None, images: Path) -> None:
    """Predict IMAGES (a folder, a picture or .npz) and print CSV: path, class, confidence.

    Confidences of an adapter with an estimate of its accuracy are calibrated by it: of pictures
    with 0.8, about 8 in 10 are right, as far as can be known without labels.

    Example: da-compose predict --backbone backbone.safetensors --adapter site-7.safetensors
    scans/site-7 > predictions.csv
    """
    loaded = load_backbone(backbone)
    rows = predictions(chosen_model(loaded, adapter, domain), images)
    first = next(rows)  # before anything is printed: nothing is, where no image can be read
    with naming("standard output"):
        for row in chain([("path", "class", "confidence"), first], rows):
            sys.stdout.write(csv_line(*row))
        sys.stdout.flush()


def predictions(model: DomainModel, images: Path) -> Iterator[tuple[str, str, str]]:
    """(path, class, confidence) of every readable picture, a few hundred at a time."""
    backbone, names = model.backbone, model.class_names
    size = backbone.network.config.image_size
    if is_archive(images):
        pixels = read_images(images, size)
        batches = [(pixels, [f"{images}[{n}]" for n in range(len(pixels))])]
    else:
        batches = picture_batches(list_pictures(images), size, PICTURES_AT_ONCE)
    for number, (pixels, paths) in enumerate(batches):
        if number == 0:
            backbone.doubt_range(pixels)  # of the others nothing new would be said
        found = probabilities(predict_logits(backbone.network, model.domain, pixels))
        if model.is_calibrated:
            found = model.calibrated(found)
        confidences, labels = found.max(dim=1)
        for path, label, confidence in zip(paths, labels, confidences, strict=True):
            yield str(path), names[int(label)], f"{float(confidence):.4f}"
