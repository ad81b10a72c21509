"""Options that several commands of `da-compose` have."""

from pathlib import Path

import click
import torch

PATH = click.Path(path_type=Path)
STEPS = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)  # what every generator in use takes
data_option = click.option(
    "--data",
    "data_root",
    type=PATH,
    envvar="DA_COMPOSE_DATA",
    help="Folder with digits/ and pictures/ inside. Else ./data, a download, the bundled set.",
)
seed_option = click.option("--seed", type=SEED, default=0, help="Seed of everything random.")
device_option = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
backbone_option = click.option("--backbone", required=True, type=PATH, help="Backbone file.")


def device_of(name: str) -> str:
    """The device an option names, `auto` resolved; refused where it cannot be used here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name).cpu()  # a meta tensor holds nothing to copy
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise click.BadParameter(
            f"{name!r} cannot be used here ({first}); try --device cpu"
        ) from error
    return name
