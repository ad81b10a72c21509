"""The commands `da-compose report` and `da-compose publish`."""

from pathlib import Path

import click

from benchmarks.committed.pages import update_pages
from benchmarks.committed.publish import publish_runs
from benchmarks.harness.folders import folder_of_rows, runs_of
from benchmarks.options import PATH
from benchmarks.reports.report import RESULTS, write_report
from data_prep.caches import checkout


@click.command("report")
@click.option(
    "--results",
    type=PATH,
    help="Folder with results.jsonl, or of its runs. [default: runs/digits; with --readme the "
    "committed benchmarks/results/digits]",
)
@click.option(
    "--readme",
    type=PATH,
    help="README whose tables are to be made anew, all of them, with those of docs/ beside it.",
)
def report_command(results: Path | None, readme: Path | None) -> None:
    """Make tables and plots anew from result rows, and README's tables with --readme.

    Example: da-compose report --readme README.md
    """
    usual = runs_of("digits") if readme is None else RESULTS / "digits"
    results = folder_of_rows(results or usual)
    write_report(results)
    if readme:
        update_pages(readme, results.parent)
    click.echo(f"tables and plots are in {results}")


@click.command("publish")
@click.argument("runs", type=PATH)
def publish(runs: Path) -> None:
    """Add the rows of RUNS to the committed results of this checkout, and make its tables anew.

    Example: da-compose publish runs/digits
    """
    if checkout() is None:
        raise click.UsageError(
            f"publish changes the committed results of a checkout, and {RESULTS.parents[1]} is "
            "none; run it from a clone"
        )
    folder, new = publish_runs(runs, RESULTS)
    click.echo(f"{new:,} new rows; tables and plots are in {folder}")
    click.echo("README's tables follow by: da-compose report --readme README.md")
