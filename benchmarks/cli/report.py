"""The command `da-compose report`."""

from pathlib import Path

import click

from benchmarks.cli.options import PATH
from benchmarks.reports.readme import update_pages
from benchmarks.reports.report import RESULTS, write_report


@click.command("report")
@click.option("--results", type=PATH, default=RESULTS / "digits", help="Folder with results.jsonl.")
@click.option(
    "--readme",
    type=PATH,
    help="README whose tables are to be made anew, all of them, with those of docs/ beside it.",
)
def report_command(results: Path, readme: Path | None) -> None:
    """Make tables and plots anew from result rows, and README's tables with --readme.

    Example: da-compose report --readme README.md
    """
    write_report(results)
    if readme:
        update_pages(readme, results.parent)
    click.echo(f"tables and plots are in {results}")
