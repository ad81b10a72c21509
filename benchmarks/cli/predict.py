"""The command `da-compose predict`."""

import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from benchmarks.cli.text import csv_line
from benchmarks.harness.chosen_model import chosen_model
from benchmarks.options import PATH, backbone_option, json_option, quiet_option
from da_compose import load_backbone, probabilities
from da_compose.archives import is_archive
from da_compose.folders import list_pictures
from da_compose.inference import DomainModel, predict_logits
from da_compose.progress import phase, show_progress
from da_compose.reading import picture_batches, read_images
from da_compose.storage.files import naming

PICTURES_AT_ONCE = 512
KEYS = ("path", "class", "confidence")


@click.command()
@backbone_option
@click.option("--adapter", type=PATH, help="Adapter file. [default: the plain source-only model]")
@click.option("--domain", help="A domain or task of the backbone, in place of --adapter.")
@click.argument("images", type=PATH)
@json_option
@quiet_option
def predict(
    backbone: Path, adapter: Path | None, domain: str | None, images: Path, as_json: bool
) -> None:
    """Predict IMAGES (a folder, a picture or .npz) and print CSV: path, class, confidence.

    Confidences of an adapter with an estimate of its accuracy are calibrated by it: of pictures
    with 0.8, about 8 in 10 are right, as far as can be known without labels.

    Example: da-compose predict --backbone backbone.safetensors --adapter site-7.safetensors
    scans/site-7 > predictions.csv
    """
    if sys.stdout is None:
        raise click.ClickException("standard output is closed; send predictions to a file: > FILE")
    loaded = load_backbone(backbone)
    model = chosen_model(loaded, adapter, domain)
    with show_progress(as_json or not sys.stdout.isatty()):  # no bar among rows
        rows = predictions(model, images)
        first = next(rows)  # before anything is printed: nothing is, where no image can be read
        with naming("standard output"):
            if as_json:
                found = [dict(zip(KEYS, row, strict=True)) for row in chain([first], rows)]
                about = {"classes": list(model.class_names), "calibrated": model.is_calibrated}
                click.echo(json.dumps(about | {"predictions": found}, indent=1))
                return
            for path, name, confidence in chain([KEYS, first], rows):
                shown = confidence if isinstance(confidence, str) else f"{confidence:.4f}"
                sys.stdout.write(csv_line(path, name, shown))
            sys.stdout.flush()


def predictions(model: DomainModel, images: Path) -> Iterator[tuple[str, str, float]]:
    """(path, class, confidence) of every readable picture, a few hundred at a time."""
    backbone, names = model.backbone, model.class_names
    size = backbone.network.config.image_size
    if is_archive(images):
        pixels = read_images(images, size)
        total = len(pixels)
        batches = [(pixels, [f"{images}[{n}]" for n in range(total)])]
    else:
        listed = list_pictures(images)
        total, batches = len(listed), picture_batches(listed, size, PICTURES_AT_ONCE)
    with phase("predicting", total) as predicting:
        for number, (pixels, paths) in enumerate(batches):
            if number == 0:
                backbone.doubt_range(pixels)  # of the others nothing new would be said
            found = probabilities(predict_logits(backbone.network, model.domain, pixels))
            if model.is_calibrated:
                found = model.calibrated(found)
            confidences, labels = found.max(dim=1)
            for path, label, confidence in zip(paths, labels, confidences, strict=True):
                yield str(path), names[int(label)], round(float(confidence), 4)
            predicting.advance(len(paths))
