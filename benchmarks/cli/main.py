"""The `da-compose` command: each command parses, calls one function, prints.

A command's module is imported when the command is called, so that help comes at once, and no
command needs a package that only another one uses.
"""

import sys
import warnings
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

import click

from benchmarks.allocator import keep_freed_memory
from benchmarks.cli.text import prepare_output, printable

WINDOWS = "win32"
EXTRAS = ("pandas", "matplotlib", "mlxtend", "joblib", "scipy")  # of da-compose[bench]


class Place(NamedTuple):
    """Where a command is, below `benchmarks.cli`, and the first line of its help."""

    module: str
    function: str
    help: str


COMMANDS = {
    "adapt": Place(
        "adapt", "adapt_command", "Adapt a backbone to a folder of unlabelled pictures."
    ),
    "adapt-many": Place(
        "adapt_many",
        "adapt_many_command",
        "Adapt a backbone to each folder of unlabelled pictures in SITES, in several processes.",
    ),
    "bench": Place("bench", "bench", "Run a benchmark; finished cells are not run again."),
    "compose": Place(
        "compose",
        "compose_command",
        "Make a backbone OUT of fine-tuned networks, each a file of weights or a backbone's.",
    ),
    "evaluate": Place(
        "evaluate",
        "evaluate",
        "Accuracy on the test split of a labelled domain, or on a whole folder, in all and by "
        "class.",
    ),
    "export": Place(
        "export",
        "export_command",
        "Export one domain as a file that runs without da-compose: pixels in, probabilities out.",
    ),
    "fetch": Place("fetch", "fetch", "Fetch a published data set."),
    "inspect": Place("inspect", "inspect", "What a backbone or an adapter FILE holds."),
    "predict": Place(
        "predict",
        "predict",
        "Predict IMAGES (a folder, a picture or .npz) and print CSV: path, class, confidence.",
    ),
    "prepare": Place(
        "prepare",
        "prepare",
        "Prepare DOMAINS (default: the benchmark's) of digits, or of --pictures.",
    ),
    "pretrain": Place(
        "pretrain",
        "pretrain",
        "Pretrain a backbone on labelled domains of digits, or of --pictures, and write it to OUT.",
    ),
    "publish": Place(
        "report",
        "publish",
        "Add the rows of RUNS to the committed results of this checkout, and make its tables anew.",
    ),
    "report": Place(
        "report",
        "report_command",
        "Make tables and plots anew from result rows, and README's tables with --readme.",
    ),
    "train-tasks": Place(
        "tasks",
        "train_tasks_command",
        "Train labelled tasks together, each with classes of its own, and write a backbone to OUT.",
    ),
    "transfer": Place(
        "tasks",
        "transfer_command",
        "Learn a new labelled task on a frozen backbone of tasks or domains.",
    ),
}


class Commands(click.Group):
    """Commands that are imported when called, and end in one line on a user's mistake."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        place = COMMANDS[cmd_name]
        try:
            if sys.platform == WINDOWS:
                import_module("da_compose.storage.locks")  # says that it cannot be
            return getattr(import_module(f"benchmarks.cli.{place.module}"), place.function)
        except ModuleNotFoundError as error:
            raise missing(error) from error
        except ImportError as error:
            if sys.platform == WINDOWS:
                raise click.ClickException(printable(str(error))) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the table above, none of them imported."""
        limit = formatter.width - 6 - max(map(len, COMMANDS))
        rows = [
            (name, click.Command(name, help=COMMANDS[name].help).get_short_help_str(limit))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        from safetensors import SafetensorError

        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly: the reader of our output has gone
        except BrokenExecutor as error:
            raise click.ClickException(
                "a worker process was killed, perhaps for lack of memory; "
                "start again with fewer --processes: finished cells are kept"
            ) from error
        except ModuleNotFoundError as error:
            raise missing(error) from error
        except (ValueError, OSError, SafetensorError) as error:
            raise click.ClickException(printable(_said(error))) from error


def _said(error: Exception) -> str:
    """The error in words; that of `tempfile` names no cause, and nothing to do."""
    said = str(error)
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in said:
        said = said.partition("] ")[2]
        return f"{said}: the disk is full, or they are read-only; name another by TMPDIR"
    return said


def missing(error: ModuleNotFoundError) -> Exception:
    """What to say of a package that an extra brings; of any other, the error as it is."""
    package = (error.name or "").partition(".")[0]
    if package in EXTRAS:
        return click.ClickException(
            f"this needs {package}, which da-compose alone does not bring; "
            "pip install 'da-compose[bench]'"
        )
    return error if package else click.ClickException(str(error))


@click.group(cls=Commands, context_settings={"show_default": True})
@click.version_option(package_name="da-compose")
def main() -> None:
    """Adapt one backbone to many domains with 64 learned numbers each.

    Example: da-compose bench digits
    """
    keep_freed_memory()
    prepare_output()
    warnings.showwarning = warn


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning; a full or closed standard error ends no work, as in Python itself."""
    with suppress(OSError, ValueError):
        click.echo(printable(f"warning: {message}"), err=True)
