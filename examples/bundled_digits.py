"""First steps, in two minutes: a backbone of two sites is adapted to a third without its labels.

Run it from anywhere: python examples/bundled_digits.py [FOLDER]
"""

import sys
from pathlib import Path

from digits_at_sites import make_backbone, right, target

from adapters import adapt, load_adaptation


def main(folder: Path) -> None:
    """Pretrain once, adapt, and compare with what is usual."""
    backbone = make_backbone(folder)
    print(f"backbone: trained on {', '.join(backbone.knowledge)}")

    # As it is, with the new site's batch-norm statistics (AdaBN), and with learned mixture weights
    for strategy in ("source_only", "batch_norm", "information_maximization"):
        adaptation = adapt(backbone, target, strategy=strategy, steps=30)
        print(f"{strategy}: {right(adaptation.predict(target))}")

    # Nobody labels the new site, so how good is it? An estimate, made without labels
    print(f"expected: {adaptation.estimate}")
    print(f"learned: {adaptation.learned_parameters} numbers; guard: {adaptation.notes['guard']}")

    # What ships for a site is one small file
    file = folder / "site-3.safetensors"
    adaptation.save(file)
    again = load_adaptation(file, backbone)
    print(f"{file.name}: {file.stat().st_size:,} bytes, {right(again.predict(target))}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))
