"""One backbone, several new domains, and a batch whose rows belong to different ones.

A domain is 64 mixture weights and statistics, so a thousand of them fit beside one network.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from adapters import adapt_many
from da_compose import pretrain
from da_compose.model.batched import predict_rows
from da_compose.reading import read_images

SIZE = 16  # pixels a side


def main(folder: Path) -> None:
    """Pretrain on two kinds of digits, adapt to three others, predict a mixed batch."""
    digits = load_digits()
    pixels, labels = (digits.images * 15.9).astype(np.uint8), digits.target  # (1797, 8, 8)
    sources = {
        "plain": (pixels[:500], labels[:500]),
        "faint": (pixels[500:1000] // 2 + 60, labels[500:1000]),
    }
    backbone = pretrain(
        sources, recipe="digits-strong", out=folder / "runs", steps=80, image_size=SIZE
    )

    new, truth = pixels[1000:], labels[1000:]
    targets = {
        "shifted": np.roll(new, 1, axis=2),
        "pale": new // 3 + 120,
        "grainy": new // 2 + np.random.default_rng(0).integers(0, 90, new.shape).astype(np.uint8),
    }
    adaptations = adapt_many(backbone, targets, steps=20, seed=0)
    for name, adaptation in adaptations.items():
        right = np.mean(np.asarray(adaptation.predict(targets[name])) == truth)
        print(f"{name}: {right:.0%} right, guard: {adaptation.notes['guard']}")
        backbone.network.domains.add(adaptation.domain)

    names = [name for name in targets for _ in range(4)]
    mixed = read_images(np.concatenate([targets[name][:4] for name in targets]), SIZE)  # (12, S, S)
    inputs = torch.from_numpy(mixed).float().div(255)[:, None].expand(-1, 3, -1, -1)
    rows = predict_rows(backbone.network, inputs, names)  # pixels (12, 3, S, S) -> (12, N)
    for name, row in zip(names, rows, strict=True):
        print(f"{name}: {backbone.class_names[int(row.argmax())]}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "many-domains"))
