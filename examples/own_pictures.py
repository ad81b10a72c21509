"""Folders of pictures -> a backbone -> an adapter for an unlabelled folder -> predictions.

The pictures are scikit-learn's digits, drawn differently at each site; put your own folders in
their place, `scans/<site>/<class>/<picture>` for labelled ones, any folder for the new site.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from adapters import adapt
from da_compose import pretrain


def draw_pictures(folder: Path) -> tuple[dict[str, Path], Path]:
    """Labelled folders of two sites, and one of a third without labels."""
    digits = load_digits()
    pixels = (digits.images * 15.9).astype(np.uint8)  # (1797, 8, 8)
    drawn = {"site-1": pixels, "site-2": pixels // 2 + 60, "site-7": pixels // 3 + 120}
    for place, (site, pictures) in enumerate(drawn.items()):
        for number in range(place, len(pictures), 3):
            label = "" if site == "site-7" else str(digits.target[number])
            path = folder / site / label / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[number]).save(path)
    return {site: folder / site for site in ("site-1", "site-2")}, folder / "site-7"


def main(folder: Path) -> None:
    """Make everything below `folder`."""
    sources, inbox = draw_pictures(folder / "scans")
    backbone = pretrain(
        sources, recipe="digits-strong", out=folder / "runs", steps=80, image_size=16
    )
    adaptation = adapt(backbone, inbox, steps=40, seed=0)
    adaptation.save(folder / "site-7.safetensors")

    probabilities = np.asarray(adaptation.predict_proba(inbox))  # (M, N)
    for picture, row in zip(sorted(inbox.iterdir())[:5], probabilities, strict=False):
        name = adaptation.class_names[row.argmax()]
        print(f"{picture.name}: {name} ({row.max():.0%})")
    print(f"guard: {adaptation.notes['guard']}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-pictures"))
