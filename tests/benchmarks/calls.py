"""Calls of the command line that must succeed, or be refused in one line."""

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from benchmarks.cli.main import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refuse(*arguments: object) -> str:
    """The one line of error that the command ends in."""
    result = call(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    *usage, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert not any(line.startswith("Error: ") for line in usage)
    return last


def commands_of(files) -> dict[str, tuple[object, ...]]:
    """A right call of each command that reads files."""
    backbone, adapter = ("--backbone", files.backbone), ("--adapter", files.adapter)
    out = ("--out", files.folder / "out.safetensors")
    return {
        "adapt": ("adapt", *backbone, "--images", files.pictures, *out, "--steps", 1),
        "predict": ("predict", *backbone, *adapter, files.pictures),
        "evaluate": ("evaluate", *backbone, *adapter, "--domain", "usps",
                     "--data", files.data_root),
        "export": ("export", *backbone, *adapter, "--out", files.folder / "out.pt2"),
        "inspect backbone": ("inspect", files.backbone),
        "inspect adapter": ("inspect", files.adapter),
    }  # fmt: skip


def outputs(files) -> dict[str, Callable[[Path], tuple[object, ...]]]:
    """A right call of commands that write a file, by its path."""
    backbone = ("--backbone", files.backbone, "--images", files.pictures)
    data = ("--steps", 1, "--data", files.data_root)
    return {
        "adapt": lambda out: ("adapt", *backbone, "--steps", 1, "--out", out),
        "pretrain": lambda out: ("pretrain", out, *data),
        "train-tasks": lambda out: ("train-tasks", out, "--task", "usps", *data),
        "transfer": lambda out: ("transfer", *backbone[:2], "--task", "usps", "--out", out, *data),
    }
