"""Recipes: a network's shape and how it is pretrained, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from da_compose.model.config import PRESETS, NetworkConfig
from da_compose.training.augmentation import AugmentationConfig
from da_compose.training.picture_augmentation import PictureAugmentation
from da_compose.training.trainer import PretrainConfig

MAP_SIZE = 8  # side of the maps that the usual patches make


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a backbone is pretrained, and the compositional network's shape.

    longer: as many times the usual steps, of whoever says how many. usual: of a benchmark that is
    asked for none by name.
    """

    pretraining: PretrainConfig
    network: NetworkConfig
    longer: int = 1
    held_out: float = 0.1  # share of each source's images that training does not see
    usual: bool = True

    @property
    def image_size(self) -> int:
        return self.network.image_size

    @property
    def num_steps(self) -> int:
        return self.longer * self.pretraining.steps

    def network_of(self, kind: str) -> NetworkConfig:
        """The compositional network, or the `unshared` one of the same shape."""
        return self.network.unshared() if kind == "unshared" else self.network

    def at_size(self, image_size: int) -> "Recipe":
        """The recipe for images of so many pixels a side, cut into the usual patches."""
        shape = {"image_size": image_size, "patch_size": usual_patch_size(image_size)}
        return replace(self, network=replace(self.network, **shape))


def usual_patch_size(image_size: int) -> int:
    """The side that divides the image into whole patches, as near to 8 x 8 of them as may be."""
    sides = (side for side in range(1, image_size + 1) if image_size % side == 0)
    return min(sides, key=lambda side: abs(side - image_size / MAP_SIZE))


def usual_recipes(recipes: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that are run where none is asked for."""
    return tuple(name for name, recipe in recipes.items() if recipe.usual)


# paper: one xi a source and no augmentation; strong: varied images, a domain `pooled` that is
# trained on all sources together, and as many templates as layers, so that the bank has as many
# weights as the unshared network; strong-long: the same for twice as many steps, as varied images
# are not learned by then
DIGIT_RECIPES: dict[str, Recipe] = {
    "paper": Recipe(pretraining=PretrainConfig(batch_size=48), network=PRESETS["small"]),
    "strong": Recipe(
        pretraining=PretrainConfig(
            batch_size=40,
            pooled=True,
            augmentation=AugmentationConfig(blur=0.3, thickness=0.5, contrast=0.3, noise=0.1),
        ),
        network=replace(PRESETS["small"], num_layers=8, num_templates=8, channels=32),
    ),
}
DIGIT_RECIPES["strong-long"] = replace(DIGIT_RECIPES["strong"], longer=2, usual=False)

# 8 layers x 8 templates: as many mixture weights as 16 x 4, in 60 % of the time
PICTURE_NETWORK = replace(
    PRESETS["large"], num_layers=8, num_templates=8, image_size=64, patch_size=8
)
PICTURE_RECIPES: dict[str, Recipe] = {
    "strong": Recipe(
        pretraining=PretrainConfig(
            steps=600, batch_size=32, pooled=True, balanced=True, augmentation=PictureAugmentation()
        ),
        network=PICTURE_NETWORK,
        usual=False,  # but those on published weights
    ),
}
# twice the templates, so twice the mixture weights and the bank, at the same time a step
PICTURE_RECIPES["strong-128"] = replace(
    PICTURE_RECIPES["strong"], network=replace(PICTURE_NETWORK, num_templates=16)
)
# As `da_compose.pretrain` takes them: of pictures unless the name says digits
RECIPES: Mapping[str, Recipe] = PICTURE_RECIPES | {
    f"digits-{name}": recipe for name, recipe in DIGIT_RECIPES.items()
}
