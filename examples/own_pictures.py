"""A folder of pictures: an adapter for it, and a line for each picture.

Put your own folder in place of the one drawn here. For photographs, pretrain on ImageNet weights:
`pretrain(sources, recipe="lite0", ...)` with folders <site>/<class>/<picture> as sources; that
takes minutes and the extra `pictures`, so this example stays with digits.
"""

import csv
import sys
from pathlib import Path

from digits_at_sites import make_backbone, target
from PIL import Image

from adapters import adapt


def draw_pictures(folder: Path) -> Path:
    """The new site's pictures as files, unlabelled."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(target):
        Image.fromarray(picture).save(folder / f"{number:04d}.png")
    return folder


def main(folder: Path) -> None:
    """Read a folder, adapt to it, write what it shows."""
    backbone = make_backbone(folder)
    inbox = draw_pictures(folder / "inbox")  # nested or flat, of any size

    adaptation = adapt(backbone, inbox, name="inbox", steps=30)
    print(f"expected accuracy: {adaptation.estimate}")

    # Calibrated: of pictures with 0.8, about 8 in 10 are right, as far as can be known
    table = adaptation.predict_proba(inbox, calibrated=True).numpy()  # (M, N)
    files = sorted(inbox.iterdir())
    with (folder / "predictions.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("picture", "class", "confidence"))
        for picture, row in zip(files, table, strict=True):
            name = adaptation.class_names[row.argmax()]
            lines.writerow((picture.name, name, f"{row.max():.2f}"))

    unsure = table.max(axis=1).argsort()[:5]
    print("to look at first:", ", ".join(files[number].name for number in unsure))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))
