"""One backbone, several new domains, and a batch whose rows belong to different ones.

A domain is a few mixture weights and statistics, so a thousand of them fit beside one network.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from digits_at_sites import make_backbone, right, target

from adapters import adapt_many
from da_compose import predict_rows
from da_compose.reading import read_images


def main(folder: Path) -> None:
    """Adapt to three domains, predict a mixed batch."""
    backbone = make_backbone(folder)
    grain = np.random.default_rng(0).integers(0, 60, target.shape).astype(np.uint8)
    targets = {"pale": target, "shifted": np.roll(target, 1, axis=2), "grainy": target + grain}
    adaptations = adapt_many(backbone, targets, steps=20)
    for name, adaptation in adaptations.items():
        print(f"{name}: {right(adaptation.predict(targets[name]))}")
        backbone.network.domains.add(adaptation.domain)

    # Rows of all three in one pass
    names = [name for name in targets for _ in range(4)]
    mixed = np.concatenate([pictures[:4] for pictures in targets.values()])
    pixels = read_images(mixed, backbone.network.config.image_size)  # uint8 (12, S, S)
    inputs = torch.from_numpy(pixels).float().div(255)[:, None].expand(-1, 3, -1, -1)
    rows = predict_rows(backbone.network, inputs, names)  # (12, 3, S, S) -> (12, N)
    for name in targets:
        places = [place for place, domain in enumerate(names) if domain == name]
        print(f"{name}:", " ".join(backbone.class_names[int(rows[n].argmax())] for n in places))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))
