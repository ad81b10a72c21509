"""The commands `da-compose train-tasks` and `da-compose transfer`."""

from pathlib import Path
from typing import Any

import click

from adapters.start import NEAREST
from adapters.transfer import TRANSFERRED, USUAL
from benchmarks.cli.files import check_output, resumable
from benchmarks.cli.mixture_options import mixture_options
from benchmarks.cli.task_actions import train_named_tasks, transfer_task
from benchmarks.cli.text import say
from benchmarks.options import (
    IMAGE_SIZE,
    NAME_OR_PATH,
    PATH,
    STEPS,
    backbone_option,
    data_option,
    device_of,
    device_option,
    quiet_option,
    seed_option,
)
from da_compose.parallel import process_group
from da_compose.storage.locks import alone

TASK = "such as kmnist, mnist_edges, emnist_letters_blur, or a folder <class>/<picture>"


@click.command("train-tasks")
@click.argument("out", type=PATH)
@click.option(
    "--task",
    "names",
    multiple=True,
    type=NAME_OR_PATH,
    help=f"A task, {TASK}; repeat. [default: the benchmark's]",
)
@click.option("--steps", type=STEPS, default=200)
@click.option(
    "--tasks-a-step",
    type=click.IntRange(min=1),
    help="So many, drawn anew each step. [default: all]",
)
@click.option("--image-size", type=IMAGE_SIZE, default=32, help="In pixels.")
@mixture_options
@data_option
@seed_option
@device_option
@quiet_option
def train_tasks_command(out: Path, names: tuple[str, ...], device: str, **options: Any) -> None:
    """Train labelled tasks together, each with classes of its own, and write a backbone to OUT.

    An interrupted run goes on when it is started again with the same options, also on several
    cores or GPUs, as `pretrain` does.

    Example: da-compose train-tasks runs/tasks/backbone.safetensors --task mnist --task kmnist
    """
    check_output(out)
    with process_group(device_of(device)) as own_device, alone(out.parent), resumable(out.parent):
        for line in train_named_tasks(out, names, device=own_device, **options):
            say(line)


@click.command("transfer")
@backbone_option
@click.option("--task", "name", required=True, type=NAME_OR_PATH, help=f"The new task, {TASK}.")
@click.option("--out", required=True, type=PATH, help="Adapter file to write.")
@click.option(
    "--start", default=NEAREST, help="nearest, mean, random, or a task or domain of the backbone."
)
@click.option(
    "--trains",
    multiple=True,
    type=click.Choice(TRANSFERRED),
    default=TRANSFERRED,
    help="What moves; repeat.",
)
@click.option("--steps", type=STEPS, default=USUAL.steps)
@click.option(
    "--labels",
    type=click.IntRange(min=1),
    help="Learn from so many images of each class. [default: all]",
)
@data_option
@seed_option
@device_option
@quiet_option
def transfer_command(out: Path, name: str, backbone: Path, device: str, **options: Any) -> None:
    """Learn a new labelled task on a frozen backbone of tasks or domains.

    Example: da-compose transfer --backbone runs/tasks/backbone.safetensors --task usps
    --out usps.safetensors
    """
    check_output(out, backbone)
    options |= {"backbone": backbone, "device": device_of(device)}
    with alone(out, folder=False):
        for line in transfer_task(out, name, **options):
            say(line)
