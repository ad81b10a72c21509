"""Networks that sites fine-tuned themselves become one backbone, without any of their pictures.

Each site starts from the same published weights and sends a file; `compose` mixes them, block by
block, and a new site learns how much of each it takes.
"""

import sys
from pathlib import Path

import torch
from digits_at_sites import right, sources, target
from torch.nn.functional import cross_entropy
from torchvision.models import mobilenet_v3_small

from adapters import adapt
from da_compose import compose
from da_compose.images import to_pixels
from da_compose.reading import read_images

SIZE = 32  # pixels a side


def fine_tune(published: dict[str, torch.Tensor], site: str, file: Path, steps: int = 12) -> None:
    """What a site does by itself, with whatever trains networks there."""
    torch.manual_seed(0)
    network = mobilenet_v3_small(num_classes=10)
    network.load_state_dict(published)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    pictures = to_pixels(read_images(sources[site][0], SIZE)).expand(-1, 3, -1, -1)  # (M, 3, S, S)
    classes = torch.from_numpy(sources[site][1])
    for step in range(steps):
        batch = slice(48 * step % 576, 48 * step % 576 + 48)
        loss = cross_entropy(network(pictures[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.state_dict(), file)
    print(f"{site}: loss {loss.item():.2f} after {steps} steps, {file.stat().st_size:,} bytes")


def main(folder: Path) -> None:
    """Two experts, a backbone of them, a new site."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    published = mobilenet_v3_small(num_classes=10).state_dict()  # stands for ImageNet weights
    files = {site: folder / f"{site}.pth" for site in sources}
    for site, file in files.items():
        fine_tune(published, site, file)

    backbone = compose(
        files, network="torchvision:mobilenet_v3_small", class_names=list("0123456789"),
        image_size=SIZE,
    )  # fmt: skip
    shape = backbone.network.config
    print(f"composed: {len(files)} experts, {shape.num_layers * shape.num_templates} numbers ξ")

    # A dozen steps from random weights teach little; with published ones this is where it pays
    adaptation = adapt(backbone, target[:100], steps=5)
    print(f"starts from: {adaptation.notes['start']}; {right(adaptation.predict(target))}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-made"))
