"""The command `da-compose adapt-many`: many sites, each a folder of unlabelled pictures."""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors import SafetensorError

from adapters import adapt, load_adaptation
from benchmarks.cli.adapt import as_document, estimated, guarded, how_options
from benchmarks.cli.files import check_folder, check_output
from benchmarks.cli.named_images import read_named_images
from benchmarks.cli.pretraining import domain_name
from benchmarks.cli.text import say
from benchmarks.harness.grid import run_grid
from benchmarks.harness.rows import append_line
from benchmarks.harness.watch import Watch, watched
from benchmarks.options import (
    PATH,
    adding,
    backbone_option,
    device_of,
    device_option,
    json_option,
    process_options,
    quiet_option,
    seed_option,
)
from da_compose import Backbone, load_backbone
from da_compose.archives import is_archive
from da_compose.folders import is_visible, visible_files, visible_folders
from da_compose.images import ImageSet
from da_compose.model.domain import check_name
from da_compose.storage.backbone import saved_fingerprint
from da_compose.storage.locks import alone

LOG = "sites.jsonl"  # in the folder of adapters: what came of each site
REFUSED = (ValueError, OSError, SafetensorError)  # a site's own fault: the others go on


@dataclass(frozen=True)
class Site:
    """A site's pictures, the name of its domain, and the adapter file to write."""

    name: str
    images: Path
    out: Path


@dataclass(frozen=True)
class Asked:
    """How every site is adapted. A path and not the backbone: each process loads it once."""

    backbone: Path
    device: str
    options: Mapping[str, Any]


@click.command("adapt-many")
@click.argument("sites", type=PATH)
@backbone_option
@click.option("--out", required=True, type=PATH, help="Folder for the adapter file of each site.")
@how_options
@seed_option
@device_option
@adding(process_options)
@json_option
@quiet_option
def adapt_many_command(
    sites: Path,
    backbone: Path,
    out: Path,
    device: str,
    processes: int,
    backend: str,
    scheduler: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Adapt a backbone to each folder of unlabelled pictures in SITES, in several processes.

    A site is a folder or an .npz file in SITES; its adapter is OUT/<site>.safetensors. What came of
    each is said as it comes and kept in OUT/sites.jsonl. Started again, only sites are adapted
    that are not finished. Ends with 1 where a site could not be adapted.

    Example: da-compose adapt-many scans --backbone backbone.safetensors --out adapters
    """
    saved_fingerprint(backbone)  # before any work: whether it is one
    found = sites_in(sites, out)
    for site in found:
        check_output(site.out, backbone, site.images)
    asked, log = Asked(backbone.absolute(), device_of(device), options), out.absolute() / LOG
    documents: dict[str, dict[str, Any]] = {}

    def seen(rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            documents[row["domain"]] = row
            if not as_json:
                for line in row["said"]:
                    say(f"{row['domain']}: {line}")

    with alone(out), watched("adapting to sites", Watch([], len(found), 1.0, log, seen)):
        run_grid(
            adapt_site, found, (asked, log),
            processes=processes, backend=backend, scheduler=scheduler,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"sites": [documents[site.name] for site in found]}, indent=1))
    if failed := sorted(name for name, row in documents.items() if row["error"]):
        count = f"{len(failed)} of {len(found)} sites were not adapted"
        raise click.ClickException(f"{count}: {', '.join(failed)}; the others are in {out}")
    if not as_json:
        click.echo(f"wrote {len(found)} adapters to {out}; what was said of each: {out / LOG}")


def sites_in(folder: Path, out: Path) -> list[Site]:
    """The sites in a folder, by name; ValueError where there is none, or two would have one name.

    Folders without any file are passed over with a warning; `out` is none of them.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder, expected one that holds a folder a site")
    check_folder(out)
    archives = [path for path in folder.iterdir() if is_visible(path.name) and is_archive(path)]
    folders = [path for path in visible_folders(folder) if path.resolve() != out.resolve()]
    empty = [path for path in folders if not visible_files(path)]
    if empty:
        names = ", ".join(path.name for path in empty)
        warnings.warn(f"left out, as they hold no file: {names}", stacklevel=2)
    places = sorted({*folders, *archives} - {*empty})
    if not places:
        raise ValueError(
            f"no site in {folder}: expected a folder of pictures for each; of one site use "
            "`da-compose adapt`"
        )
    named = {path: domain_name(path.stem if path.is_file() else path.name, "") for path in places}
    for name, count in Counter(named.values()).items():
        alike = ", ".join(path.name for path in places if named[path] == name)
        if not name:
            raise ValueError(f"no letter or digit in {alike}, to name a domain by; rename it")
        check_name(name)
        if count > 1:
            raise ValueError(f"{alike}: all would be called {name}; rename all but one")
    return [
        Site(name, path.absolute(), out.absolute() / f"{name}.safetensors")
        for path, name in named.items()
    ]


def adapt_site(site: Site, asked: Asked, log: Path) -> None:
    """Adapt to one site, unless that is done, and add what came of it to the log."""
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        try:
            found = _document(site, asked)
        except REFUSED as error:
            reason = " ".join(str(error).split())
            found = {"domain": site.name, "error": reason, "said": [f"not adapted: {reason}"]}
    also = dict.fromkeys(f"warning: {one.message}" for one in warned)
    append_line(log, found | {"said": [*also, *found["said"]]})


def _document(site: Site, asked: Asked) -> dict[str, Any]:
    backbone = _loaded(asked.backbone, asked.device)
    found = read_named_images(site.images, backbone.network.config.image_size)
    images = ImageSet(found.images, np.zeros(len(found.images), dtype=np.int64)).fingerprint
    how = {"images": images, "options": dict(asked.options)}
    if site.out.exists():
        adaptation = load_adaptation(site.out, backbone)
        if adaptation.notes.get("asked") != how:
            raise ValueError(
                f"{site.out} was adapted to other pictures or by other options; move it away, or "
                "name another --out"
            )
    else:
        adaptation = adapt(backbone, found.images, name=site.name, **asked.options)
        adaptation.notes["asked"] = how
        adaptation.save(site.out)
    said = [*estimated(adaptation), *guarded(adaptation)]
    return as_document(adaptation, found, site.out, None) | {"error": None, "said": said}


@lru_cache(maxsize=1)
def _loaded(path: Path, device: str) -> Backbone:
    return load_backbone(path, device)
