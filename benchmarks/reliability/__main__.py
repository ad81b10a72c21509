"""The campaign, `python -m benchmarks.reliability`; one trial of it: `--only KIND --trial 17`."""

import os
import shutil
import sys
from pathlib import Path

import click

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: also for children

from benchmarks.harness.folders import ROWS, results_of, runs_of
from benchmarks.harness.rows import append_line, read_lines
from benchmarks.options import PATH, SEED
from benchmarks.reliability.campaign import KINDS, PROFILES, Campaign, about, rows_of
from benchmarks.reliability.outcome import WRONG
from benchmarks.reliability.table import by_part
from da_compose.storage.files import replacing


@click.command()
@click.option("--profile", type=click.Choice(PROFILES), default="quick",
              help="short: about a minute on one core; quick: ten; full: an hour.")  # fmt: skip
@click.option("--only", "kinds", type=click.Choice(list(KINDS)), multiple=True,
              help="Kinds of trials; repeat. [default: all]")  # fmt: skip
@click.option("--trial", type=click.IntRange(min=0), help="One trial alone, of one kind.")
@click.option("--runs", type=PATH, default=runs_of("reliability"), help="Where trials work.")
@click.option("--results", type=PATH, help="Rows and table. [default: results/ in --runs]")
@click.option("--seed", type=SEED, default=0, help="Seed of everything random.")
def main(
    profile: str,
    kinds: tuple[str, ...],
    trial: int | None,
    runs: Path,
    results: Path | None,
    seed: int,
) -> None:
    """Try what may go wrong in silence; ends with 1 where anything is wrong.

    Folders of wrong trials stay in --runs.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise click.ClickException("the campaign measures processes by /proc: run it on Linux")
    if trial is not None and len(kinds) != 1:
        raise click.UsageError("a trial is of one kind: name it by --only")
    campaign = Campaign.at(runs / "work", seed)
    if trial is not None:
        (_, found), *_ = campaign.run(kinds[0], range(trial, trial + 1))
        click.echo(f"{KINDS[kinds[0]].part(trial)}: {found.verdict}. {found.said}")
        sys.exit(found.verdict == WRONG)
    file, wrong = results_of(runs, results) / ROWS, 0
    for name in kinds or KINDS:
        if not (count := KINDS[name].count(profile)):
            continue
        trials = campaign.run(name, range(count))
        rows = rows_of(name, trials, about(profile, seed), click.echo)
        for row in rows:
            append_line(file, row)
        tried, bad = (sum(row[verdict] for row in rows) for verdict in ("tried", WRONG))
        wrong += bad
        click.echo(f"{name}: {tried} trials, {bad} wrong, {rows[0]['seconds_of_kind']:.0f} s")
    with replacing(file.with_name("table.md")) as temporary:
        temporary.write_text(by_part(read_lines(file)), encoding="utf-8")
    if not wrong:
        shutil.rmtree(campaign.folder)
    click.echo(f"wrote {file.with_name('table.md')}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
