"""What several commands of `da-compose` have: options, and how a user's mistake ends them."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource

from benchmarks.harness.grid import BACKENDS
from benchmarks.harness.picture_benchmarks import TARGETS
from da_compose.options import check_device
from da_compose.progress import show_progress
from data_prep.caches import CACHE_VARIABLE


class FilledPath(click.Path):
    """A path; an empty text, as of a shell variable that is unset, would mean the folder here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("expected a path, got an empty text; is a shell variable unset?", param, ctx)
        return super().convert(value, param, ctx)


PATH = FilledPath(path_type=Path)
NAME_OR_PATH = FilledPath()  # as text
IMAGE_SIZE = click.IntRange(1, 4096)
STEPS = click.IntRange(min=1)
SEED = click.IntRange(0, 2**32 - 1)  # what every generator in use takes
seed_option = click.option("--seed", type=SEED, default=0, help="Seed of everything random.")
device_option = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document of the result, for scripts."
)
backbone_option = click.option("--backbone", required=True, type=PATH, help="Backbone file.")
process_options = (
    click.option(
        "--processes",
        type=click.IntRange(min=1),
        default=os.cpu_count() or 1,
        help="One-thread processes at a time.",
    ),
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="loky",
        help="What runs the processes: loky, on this machine; dask or ray, also on a cluster.",
    ),
    click.option(
        "--scheduler",
        help="Address of Dask's scheduler. [default: a cluster of --processes here]",
    ),
)
# Options that digits do not heed
OF_PICTURES = ("image_size", "patch_size", "classes", "per_class", "trunk", "trunk_weights")


def adding(options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """One decorator of several options, in their order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def name_cache(context: click.Context, _: click.Parameter, folder: Path | None) -> None:
    """Keep prepared data there as long as the command runs, in its processes too."""
    if folder is None:
        return
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder.absolute())

    @context.call_on_close
    def restore() -> None:
        os.environ.pop(CACHE_VARIABLE, None)
        if before is not None:
            os.environ[CACHE_VARIABLE] = before


def show_or_not(context: click.Context, _: click.Parameter, quiet: bool) -> None:
    """Show progress as long as the command runs, or none."""
    context.with_resource(show_progress(not quiet))


quiet_option = click.option(
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=show_or_not,
    help="No progress: results, warnings and errors alone.",
)
cache_option = click.option(
    "--cache",
    type=PATH,
    expose_value=False,
    callback=name_cache,
    help=f"Folder for prepared data and downloads. [default: {CACHE_VARIABLE}; else data/ of a "
    "checkout; else the platform's caches]",
)


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where data is read from, and where what is made of it is kept."""
    return click.option(
        "--data",
        "data_root",
        type=PATH,
        envvar="DA_COMPOSE_DATA",
        help="Folder with digits/, pictures/, tasks/ inside. Else ./data, a download, bundled "
        "sets.",
    )(cache_option(command))


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that read labelled pictures in the place of digits."""
    for option in (
        click.option("--per-class", type=click.IntRange(min=1), help="At most so many pictures."),
        click.option("--classes", type=PATH, help="File of class names, a line each: only those."),
        click.option(
            "--image-size", type=IMAGE_SIZE, help="In pixels. [default: the recipe's, or 64]"
        ),
        click.option(
            "--pictures",
            type=NAME_OR_PATH,
            help=f"Folder <domain>/<class>/<picture>, or {', '.join(TARGETS)}.",
        ),
    ):
        command = option(command)
    return command


def without_pictures(options: dict[str, Any]) -> dict[str, Any]:
    """The options that digits heed; raises where one of the others was given."""
    context = click.get_current_context()
    for name in OF_PICTURES:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --pictures; add it")
    return {name: value for name, value in options.items() if name not in OF_PICTURES}


@contextmanager
def users_mistakes() -> Iterator[None]:
    """What a user can mend ends the command in one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def device_of(name: str) -> str:
    """The device an option names, `auto` resolved; refused where it cannot be used here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        check_device(name)
    except ValueError as error:
        raise click.BadParameter(str(error).replace("try cpu", "try --device cpu")) from error
    return name
