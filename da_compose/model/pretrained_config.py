"""Which pretrained network a compositional one is on, and its shape."""

from dataclasses import dataclass

from da_compose.model.contract import Shape
from da_compose.options import make_whole

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OWN = "own:"  # how a module that no name rebuilds is named
Numbers = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """Which network it is, and its shape; `PretrainedNetwork.of` finds the shape.

    name: `timm:NAME`, `torchvision:NAME`, or `own:CLASS` of a user's own module. displaced:
    patterns of further weights that directions move, beside gamma and beta of the blocks' norms,
    such as "*.conv_dw.weight"; "*": of all from the first block to the embedding. Those of no block
    move with the block before them. weights: where they came from.
    """

    name: str
    blocks: tuple[str, ...]  # parts of the module, one a layer
    num_classes: int  # N
    image_size: int  # pixels a side
    channels: int  # C of the last block's output
    embedding: int  # F
    num_statistics: int  # channels of all batch norms
    num_templates: int = 0  # K directions a layer; 0: not learned yet
    mean: Numbers = IMAGENET_MEAN  # of pixels in [0, 1], as the weights expect
    std: Numbers = IMAGENET_STD
    displaced: tuple[str, ...] = ()
    weights: str = "unknown"

    def __post_init__(self) -> None:
        make_whole(self, num_classes=2, image_size=1, num_templates=0)
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
            if len(getattr(self, name)) != self.image_channels:
                raise ValueError(f"{name} must be of 3 channels, got {getattr(self, name)}")

    @property
    def num_layers(self) -> int:
        return len(self.blocks)

    @property
    def image_channels(self) -> int:
        return 3

    @property
    def signature(self) -> None:
        return None


def check_rebuilt(config: Shape) -> None:
    """Raise ValueError where no name rebuilds the module that a network is on."""
    if isinstance(config, PretrainedConfig) and config.name.startswith(OWN):
        kind = config.name.removeprefix(OWN)
        raise ValueError(
            f"a file cannot rebuild {kind}, a module of your own; register it with timm "
            "(timm.models.register_model) and name the network timm:NAME, or export its domains "
            "(.pt2, .onnx)"
        )
