"""Fails when a short benchmark run is not healthy: `python -m benchmarks.harness.check FOLDER`."""

from pathlib import Path

import click

from adapters.parts import MIXED
from benchmarks.harness.rows import latest, read_rows

DEFAULT = MIXED.strategy
TOLERATED = 1.0  # points the default may end below the better of source-only and AdaBN


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--above", default=60.0, help="Least accuracy in percent of the default strategy.")
def main(folder: Path, above: float) -> None:
    """Check that the default strategy learned, and did not make things worse."""
    try:
        rows = latest(read_rows(folder / "results.jsonl"))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    rows = [row for row in rows if row.strategy == DEFAULT]
    if not rows:
        raise click.ClickException(f"no rows of {DEFAULT} in {folder}")
    for row in rows:
        name = f"{row.recipe} {row.network} {row.trains} on {row.target}"
        start = max(row.source_only, row.batch_norm)
        click.echo(f"{name}: {row.accuracy:.2f} %, better of source-only and AdaBN {start:.2f} %")
        if row.accuracy < above:
            raise click.ClickException(f"{name}: {row.accuracy:.2f} % is below {above} %")
        if row.accuracy < start - TOLERATED:
            raise click.ClickException(f"{name}: adaptation lost {start - row.accuracy:.2f} points")


if __name__ == "__main__":
    main()
