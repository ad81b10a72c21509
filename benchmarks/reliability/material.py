"""What trials work on: shapes to tell apart, a tiny backbone that can, folders of pictures."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters import adapt
from da_compose import Backbone, NetworkConfig, Recipe, load_backbone, pretrain
from da_compose.training.trainer import PretrainConfig

SIZE = 16  # pixels a side
CLASSES = ("disc", "rows", "columns")
SITES = {"site-1": (1.0, 1.0, 1.0), "site-2": (1.0, 0.7, 0.6), "site-3": (0.5, 0.8, 1.0)}  # tints
NEW = "site-3"  # no source
TINY = NetworkConfig(
    num_layers=2, num_templates=2, channels=8, patch_size=4, image_size=SIZE, hidden=16,
    embedding=12, num_classes=len(CLASSES),
)  # fmt: skip
TRAINING = PretrainConfig(steps=150, batch_size=24, statistics_batches=4)
PICTURES_OF_A_CLASS = 6
DIGITS = {"mnist": (28, 28), "meter": (24, 20, 3), "usps": (16, 16)}  # shapes of images
Images = NDArray[np.uint8]


def shapes(count: int, seed: int, site: str = NEW) -> tuple[Images, NDArray[np.int64]]:
    """Discs and stripes on noise in a site's tint, uint8 (M, S, S, 3), and their classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASSES), count)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre, radius, place, width = (
        random.uniform(low, high, (count, 1, 1))
        for low, high in ((-2, 2), (3, 5), (0, 6), (3.5, 5))
    )
    disc = (x - SIZE / 2 - centre) ** 2 + (y - SIZE / 2 + centre) ** 2 < radius**2
    drawn = np.stack([disc, (y + place) % width < width / 2, (x + place) % width < width / 2])
    grey = 40 + 170 * drawn[labels, np.arange(count)] + random.normal(0, 12, (count, SIZE, SIZE))
    tinted = grey[..., None] * np.array(SITES[site])
    return tinted.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


@dataclass(frozen=True)
class Material:
    """A folder with all of it; nothing there is changed by a trial."""

    folder: Path

    @property
    def backbone(self) -> Path:
        return self.folder / "backbone.safetensors"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter.safetensors"

    @property
    def tree(self) -> Path:
        """Folders <site>/<class>/<picture>."""
        return self.folder / "tree"

    @property
    def data(self) -> Path:
        """A root of digits and tasks, noise all of it."""
        return self.folder / "data"


def make_material(folder: Path) -> Material:
    """Train the backbone, adapt it to the new site, write pictures and data; some seconds."""
    made = Material(folder)
    made.folder.mkdir(parents=True, exist_ok=True)
    sources = {site: shapes(300, place, site) for place, site in enumerate(SITES) if site != NEW}
    backbone = pretrain(
        sources,
        recipe=Recipe(pretraining=TRAINING, network=TINY),
        out=folder / "pretrained",
        class_names=CLASSES,
        show_progress=False,
    )
    backbone.save(made.backbone)
    adapt(backbone, shapes(120, 10)[0], steps=10, name=NEW).save(made.adapter)
    for number, site in enumerate(SITES):
        write_pictures(made.tree / site, PICTURES_OF_A_CLASS, seed=20 + number, site=site)
    random = np.random.default_rng(0)
    sets = {f"digits/{name}": shape for name, shape in DIGITS.items()} | {"tasks/kmnist": (28, 28)}
    for name, shape in sets.items():
        path = made.data / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for split, count in (("train", 30), ("test", 20)):
            arrays[f"{split}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
            arrays[f"{split}_labels"] = random.permutation(count) % 10
        np.savez(path, allow_pickle=False, **arrays)
    return made


def write_pictures(folder: Path, of_a_class: int, seed: int, site: str = NEW) -> list[Path]:
    """PNG pictures in folders of classes, as many of each; their paths."""
    images, labels = shapes(8 * of_a_class * len(CLASSES) + 60, seed, site)
    written = []
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place, image in enumerate(images[labels == number][:of_a_class]):
            path = folder / name / f"{place:04}.png"
            Image.fromarray(image).save(path)
            written.append(path)
    return written


@cache
def loaded(material: Material) -> Backbone:
    """The backbone, read once in a process."""
    return load_backbone(material.backbone)


def tiny_recipes() -> None:
    """Make recipes of this process tiny, and save states often; for children."""
    from da_compose.training import recipes, run

    run.SAVE_EVERY = 2
    short = PretrainConfig(steps=6, batch_size=4, statistics_batches=2)
    digits = replace(TINY, image_size=32, patch_size=8, num_classes=10)
    for table, network in ((recipes.DIGIT_RECIPES, digits), (recipes.PICTURE_RECIPES, TINY)):
        for name, recipe in table.items():
            pooled = replace(short, pooled=recipe.pretraining.pooled)
            table[name] = replace(recipe, pretraining=pooled, network=network)
