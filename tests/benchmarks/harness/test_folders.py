"""What runs write by default lies below the working directory, never beside the package."""

from importlib import import_module
from pathlib import Path

import click
import pytest

from benchmarks.cli.bench import bench
from benchmarks.cli.report import report_command
from benchmarks.harness.folders import results_of, runs_of

STUDIES = ("ablation", "compose", "curve", "few_labels", "guard", "memory", "selection", "tuning")
COMMANDS = {
    **{f"bench {name}": command for name, command in bench.commands.items()},
    **{name: import_module(f"benchmarks.studies.{name}").main for name in STUDIES},
    "report": report_command,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_default_folders_are_runs_of_the_working_directory(name):
    defaults: list[Path] = [
        option.default
        for option in COMMANDS[name].params
        if isinstance(option, click.Option) and isinstance(option.default, Path)
    ]
    assert all(path.parts[0] == "runs" for path in defaults)
    assert defaults or name in ("report",)


def test_results_lie_in_the_runs_unless_they_are_named():
    assert results_of(runs_of("digits")) == Path("runs/digits/results")
    assert results_of(runs_of("digits"), Path("mine")) == Path("mine")
