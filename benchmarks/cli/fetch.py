"""The commands `da-compose fetch ...`."""

from pathlib import Path
from typing import Any

import click

from benchmarks.cli.files import check_folder
from benchmarks.options import PATH, data_option, quiet_option
from data_prep.caches import cache_folder
from data_prep.domainnet import DOMAINS, PUBLISHER, describe, fetch_domainnet
from data_prep.locations import chosen_root


@click.group()
def fetch() -> None:
    """Fetch a published data set.

    Example: da-compose fetch domainnet --dry-run
    """


@fetch.command("domainnet")
@click.option("--domain", "domains", multiple=True, type=click.Choice(DOMAINS), default=DOMAINS)
@click.option(
    "--to", "folder", type=PATH, help="[default: pictures/domainnet in --data, else --cache]"
)
@click.option("--mirror", default=PUBLISHER, help="Address that has the publisher's files.")
@click.option("--checksums", type=PATH, help="MD5 of files published anew, as md5sum writes them.")
@click.option("--keep-zips", is_flag=True, help="Keep what is unpacked.")
@click.option("--dry-run", is_flag=True, help="Print what would be fetched, and how large it is.")
@data_option
@quiet_option
def fetch_domainnet_command(
    folder: Path | None, data_root: Path | None, dry_run: bool, **options: Any
) -> None:
    """DomainNet's cleaned version, 17.7 GB in six domains; goes on where it was interrupted.

    Example: da-compose fetch domainnet --domain sketch --domain real --to ~/domainnet
    """
    if folder is None:
        folder = (chosen_root(data_root) or cache_folder()) / "pictures" / "domainnet"
    domains, mirror = options.pop("domains"), options.pop("mirror")
    if dry_run:
        click.echo(describe(folder, domains, base_url=mirror))
        return
    check_folder(folder)
    fetch_domainnet(folder, domains, base_url=mirror, **options)
    click.echo(f"{', '.join(domains)}: in {folder}")
