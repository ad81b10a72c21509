"""Predictions of one domain of a backbone, from images of any kind to classes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da_compose.context import undisturbed
from da_compose.estimate import tempered
from da_compose.images import to_pixels
from da_compose.model.contract import Network, probabilities
from da_compose.model.domain import Domain
from da_compose.model.plain import Classifier, materialize
from da_compose.reading import read_images
from da_compose.storage.adapter import save_adapter
from da_compose.storage.backbone import Backbone
from da_compose.storage.export import check_format, export
from da_compose.storage.int8 import export_int8


def batches(
    network: Network, images: NDArray[np.uint8], size: int | None = None
) -> Iterator[Tensor]:
    """Pixels in batches (B, 1 or 3, S, S) of uint8 images (M, S, S) or (M, S, S, 3).

    size: B; None: the network's `images_at_once`.
    """
    size = size or network.images_at_once
    for start in range(0, len(images), size):
        yield to_pixels(images[start : start + size]).to(network.device)


@torch.no_grad()
def predict_logits(network: Network, domain: Domain, images: NDArray[np.uint8]) -> Tensor:
    """Logits of both heads under stored statistics: uint8 images (M, S, S[, 3]) -> (2, M, N)."""
    _check_stored(domain)
    logits = [network(batch, domain).float().cpu() for batch in batches(network, images)]
    return torch.cat(logits, dim=1)


@torch.no_grad()
def embed(network: Network, domain: Domain, images: NDArray[np.uint8]) -> Tensor:
    """Embeddings under stored statistics, on the network's device: images as above -> (M, F)."""
    _check_stored(domain)
    return torch.cat([network.features(batch, domain)[1] for batch in batches(network, images)])


def _check_stored(domain: Domain) -> None:
    if domain.batch_statistics:
        raise ValueError(
            f"domain {domain.name} normalizes by each batch, so a prediction would depend on the "
            "others; call use_batch_statistics(False) first"
        )


@dataclass
class DomainModel:
    """A backbone as one of its domains, or as a domain that was made on it.

    Images are of any kind that `da_compose.reading.read_images` takes.
    """

    backbone: Backbone
    domain: Domain
    notes: dict[str, Any] = field(default_factory=dict, kw_only=True)  # how it came about

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the numbers that `predict` returns stand for."""
        return self.backbone.class_names_of(self.domain)

    def predict(self, images: Any) -> Tensor:
        """Class indices (M,), into `class_names`."""
        return self.predict_proba(images).argmax(dim=1)

    @undisturbed()
    def predict_proba(self, images: Any, *, calibrated: bool = False) -> Tensor:
        """Class probabilities (M, N), rows summing to 1.

        calibrated: as sure as the model is right, by the estimate of its accuracy when it was
        adapted: of images that are 0.8 sure, about 8 in 10 are right, as far as can be known. The
        classes are the same. Raises ValueError where there is no estimate.
        """
        if calibrated and not self.is_calibrated:
            raise ValueError(
                f"domain {self.domain.name} has no estimate of its accuracy to calibrate by: it "
                "is no adapter's, or its backbone was neither rehearsed nor of two sources; leave "
                "calibrated out"
            )
        pixels = read_images(images, self.backbone.network.config.image_size)
        self.backbone.doubt_range(pixels)
        found = probabilities(predict_logits(self.backbone.network, self.domain, pixels))
        return self.calibrated(found) if calibrated else found

    def calibrated(self, prediction: Tensor) -> Tensor:
        """Class probabilities (M, N) as `predict_proba` makes them of its own, calibrated."""
        return tempered(prediction, self.notes["temperature"])

    @property
    def is_calibrated(self) -> bool:
        """Whether it has an estimate of its accuracy that `predict_proba` can be calibrated by."""
        return "temperature" in self.notes

    @undisturbed()
    def model(self) -> Classifier:
        """An ordinary module: pixels in [0, 1], float32 (B, 3, S, S) -> probabilities (B, N).

        The mixture is materialized and batch norm folded in, as they stand: later updates do not
        reach it. `torch.compile`, `torch.export` and `DataParallel` take it.
        """
        return Classifier(materialize(self.backbone.network, self.domain)).eval().float()

    def save(self, path: str | Path) -> None:
        """Write the adapter file: xi, statistics and any part of the domain's own, as it is."""
        save_adapter(path, self.backbone, self.domain, self.notes)

    @undisturbed()
    def export(self, path: str | Path, *, int8: Any = None) -> float:
        """Write a file that runs without this package; see `da_compose.storage.export.export`.

        int8: unlabelled images of the domain: the .onnx file then computes in 8-bit integers, and
        the share of them that keep their class is returned; see `da_compose.storage.int8`.
        """
        if int8 is None:
            return export(self.backbone, self.domain, path)
        check_format(Path(path), int8=True)  # before images are read
        pixels = read_images(int8, self.backbone.network.config.image_size)
        self.backbone.doubt_range(pixels)
        return export_int8(self.backbone, self.domain, path, pixels)
