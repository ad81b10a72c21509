"""The command `da-compose prepare`."""

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.cli.pretraining import choose_pictures, domain_notes
from benchmarks.cli.text import say
from benchmarks.harness.benchmark import load_digits
from benchmarks.options import data_option, picture_options, quiet_option, without_pictures
from da_compose.pictures import BrokenPicture, named
from da_compose.training.recipes import PICTURE_NETWORK
from data_prep import PreparedDomain, load_digit_domain, load_picture_domain


@click.command()
@click.argument("domains", nargs=-1)
@picture_options
@data_option
@quiet_option
def prepare(domains: tuple[str, ...], pictures: str | None, **options: Any) -> None:
    """Prepare DOMAINS (default: the benchmark's) of digits, or of --pictures.

    Says what and where from; pictures that are left out are listed.

    Example: da-compose prepare mnist usps
    """
    if pictures is None:
        lines = prepared_digits(domains, **without_pictures(options))
    else:
        lines = prepared_pictures(domains, pictures, **options)
    for line in lines:
        say(line)


def prepared_digits(domains: tuple[str, ...], data_root: Path | None) -> Iterator[str]:
    """Prepare digit domains, by default the benchmark's; lines that say what and where from."""
    if domains:
        found = (load_digit_domain(name, data_root=data_root) for name in domains)
    else:
        data = load_digits(data_root)
        yield from (f"note: {note}" for note in data.notes)
        found = data.prepared.values()
    for domain in found:
        yield from _described(domain)


def prepared_pictures(
    domains: tuple[str, ...],
    pictures: str,
    *,
    image_size: int | None,
    classes: Path | None,
    per_class: int | None,
    data_root: Path | None,
) -> Iterator[str]:
    """The same of pictures, by default all domains; a warning lists each one that is left out."""
    chosen = choose_pictures(pictures, data_root, classes, per_class)
    yield from (f"note: {note}" for note in chosen.notes)
    for name in domains or chosen.domains:
        domain = load_picture_domain(chosen, name, size=image_size or PICTURE_NETWORK.image_size)
        yield from _described(domain)
        if left_out := named([*_left_out(domain)]):
            warnings.warn("\n".join([f"{domain.name}: left out:", *left_out]), stacklevel=2)


def _described(domain: PreparedDomain) -> Iterator[str]:
    yield (
        f"{domain.name}: {len(domain.train):,} training and {len(domain.test):,} test images; "
        f"from: {domain.origin}; fingerprint {domain.fingerprint}"
    )
    yield from (f"note: {note}" for note in domain_notes(domain))


def _left_out(domain: PreparedDomain) -> Iterator[BrokenPicture]:
    """Every picture that the domain lacks; duplicates are kept."""
    if domain.problems is not None:
        with domain.problems.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                if not row["reason"].startswith("duplicate of "):
                    yield BrokenPicture(Path(row["path"]), row["reason"])
