"""The command `da-compose pretrain`."""

from pathlib import Path
from typing import Any

import click

from benchmarks.cli.files import check_output, resumable
from benchmarks.cli.mixture_options import mixture_options
from benchmarks.cli.pretraining import RANDOM, pretrain_digits, pretrain_pictures
from benchmarks.cli.text import say
from benchmarks.harness.plan import NETWORKS
from benchmarks.options import (
    PATH,
    STEPS,
    data_option,
    device_of,
    device_option,
    picture_options,
    quiet_option,
    seed_option,
    without_pictures,
)
from da_compose.parallel import process_group
from da_compose.storage.locks import alone
from da_compose.storage.trunk_weights import DOWNLOAD
from da_compose.training.pretrained import PRETRAINED_RECIPES
from da_compose.training.recipes import DIGIT_RECIPES, PICTURE_RECIPES
from da_compose.training.run import SAVE_EVERY

RECIPES = [*dict.fromkeys((*DIGIT_RECIPES, *PICTURE_RECIPES, *PRETRAINED_RECIPES))]


@click.command()
@click.argument("out", type=PATH)
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    help="paper, strong, strong-long: of digits; lite0, on ImageNet weights (extra `pictures`), "
    "or strong, from scratch: of pictures. [default: strong; of pictures of 64 pixels and more: "
    "lite0]",
)
@click.option("--network", type=click.Choice(NETWORKS), default="compositional")
@click.option("--source", "sources", multiple=True, help="A source domain; repeat. [default: all]")
@click.option("--target", help="Domain left out. [default: digits: the benchmark's; else none]")
@click.option("--steps", type=STEPS, help="Fewer are done sooner. [default: the recipe's]")
@picture_options
@click.option(
    "--patch-size",
    type=click.IntRange(min=1),
    help="In pixels. [default: an eighth of the image; on a trunk's map: 1]",
)
@click.option("--trunk", help="Frozen torchvision network in front, such as resnet18.layer3.")
@click.option(
    "--trunk-weights", help=f"Its .safetensors file, {DOWNLOAD}, or, for a trial, {RANDOM}."
)
@click.option(
    "--save-every", type=STEPS, help=f"Steps between states to go on from. [default: {SAVE_EVERY}]"
)
@mixture_options
@data_option
@seed_option
@device_option
@quiet_option
def pretrain(out: Path, pictures: str | None, device: str, **options: Any) -> None:
    """Pretrain a backbone on labelled domains of digits, or of --pictures, and write it to OUT.

    An interrupted run goes on when it is started again with the same options. On several cores or
    GPUs, which share every batch: torchrun --nproc-per-node 2 -m da_compose pretrain OUT ...

    Example: da-compose pretrain runs/my/backbone.safetensors --pictures scans --target site-7
    """
    if pictures is None:
        options = without_pictures(options)
        options["recipe"] = options["recipe"] or "strong"
    check_output(out)
    with process_group(device_of(device)) as own_device, alone(out.parent), resumable(out.parent):
        if pictures is None:
            lines = pretrain_digits(out, device=own_device, **options)
        else:
            lines = pretrain_pictures(out, pictures, device=own_device, **options)
        for line in lines:
            say(line)
