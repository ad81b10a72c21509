"""Calls of the command line that must succeed, or be refused in one line."""

from click.testing import CliRunner, Result

from benchmarks.cli import main


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
