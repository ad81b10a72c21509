"""Shape of a compositional network."""

from dataclasses import dataclass, replace

from da_compose.options import make_whole, whole


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Shape of a network. Defaults are those of the digits' recipe `paper`: 16 x 4 = 64."""

    num_layers: int = 16  # L
    num_templates: int = 4  # K
    channels: int = 24  # C
    expansion: int = 4  # expanded width = expansion * C
    squeeze: int = 4  # squeezed width of squeeze-excite = expanded width / squeeze
    patch_size: int = 4  # pixels; kernel and stride of the input adapter
    image_size: int = 32  # pixels; S = image_size / patch_size
    image_channels: int = 3
    hidden: int = 128  # channels of the output adapter before pooling
    embedding: int = 256  # features after it
    num_classes: int = 10  # N
    mixed_batch_norm: bool = True  # gamma, beta belong to templates; else one set a layer
    signature: tuple[int, ...] | None = None  # fixed template of each layer; None: xi is learned
    # Frozen features in front (`Trunk`), such as "resnet18.layer3"; patches are then of its map.
    trunk: str | None = None

    def __post_init__(self) -> None:
        make_whole(
            self, num_layers=1, num_templates=1, channels=1, expansion=1, squeeze=1, patch_size=1,
            image_size=1, image_channels=1, hidden=1, embedding=1, num_classes=2,
        )  # fmt: skip
        if self.trunk is None and self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )
        if self.trunk is not None and self.image_channels != 3:
            raise ValueError(f"a trunk takes images of 3 channels, got {self.image_channels}")
        if self.signature is None:
            return
        object.__setattr__(self, "signature", tuple(whole("signature", k) for k in self.signature))
        if len(self.signature) != self.num_layers:
            raise ValueError(
                f"signature has {len(self.signature)} entries for {self.num_layers} layers"
            )

    @property
    def expanded(self) -> int:
        return self.channels * self.expansion

    @property
    def block_statistics(self) -> int:
        """Channels of the three batch norms of one block."""
        return 2 * self.expanded + self.channels

    @property
    def num_statistics(self) -> int:
        """Channels of all batch norms: the length of a domain's `mean` and `var`."""
        blocks = self.num_layers * self.block_statistics
        return self.channels + blocks + self.hidden + self.embedding

    def unshared(self) -> "NetworkConfig":
        """The ordinary isometric network of the same shape: a template of its own each layer."""
        return replace(self, num_templates=self.num_layers, signature=tuple(range(self.num_layers)))


PRESETS = {
    "small": NetworkConfig(channels=24, hidden=128, embedding=256),
    "large": NetworkConfig(channels=40, hidden=960, embedding=1280),
}
