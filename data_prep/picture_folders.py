"""Where the picture benchmarks' domains are, and which of them are asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from da_compose.folders import any_picture, one_spelling, visible_folders
from da_compose.trees import AROUND, SPLITS
from data_prep.domainnet import DOMAINS
from data_prep.locations import DATA_VARIABLE, DomainUnavailable, data_folders

KNOWN = ("domainnet", "pacs", "satellite", "emoji")
TREE = "tree:"  # before the path of a user's own tree
HINTS = {
    "domainnet": "fetch it by `da-compose fetch domainnet`",
    "pacs": "unpack PACS there, as <domain>/<class>/<picture>",
    "satellite": "put aerial scenes there, as <collection>/<class>/<picture>",
}


def find(name: str, data_root: Path | None) -> tuple[Path, tuple[str, ...]]:
    """The first folder with domains, and their names: two or more, in a tree of one's own one."""
    least = 2 if name in KNOWN else 1
    if name in KNOWN:
        folders = data_folders(f"pictures/{name}", data_root)
    else:
        folders = [Path(name.removeprefix(TREE)).expanduser().resolve()]
        if not folders[0].is_dir():
            raise ValueError(
                f"no folder at {name.removeprefix(TREE)}; expected one as "
                f"<domain>/<class>/<picture>, or a picture benchmark: {', '.join(KNOWN)}"
            )
    for folder in folders:
        domains = tuple(path.name for path in folders_in(folder) if folders_in(path))
        if domains and all(domain.lower() in AROUND | SPLITS.keys() for domain in domains):
            raise ValueError(
                f"{folder} holds {', '.join(domains)}, expected <domain>/<class>/<picture>; give "
                f"{folder / domains[0]} if it is around domains, or move all into one folder if "
                "it is one domain"
            )
        if name == "domainnet":
            domains = tuple(domain for domain in DOMAINS if domain in domains)
        if len(domains) >= least:
            return folder, domains
    if name not in KNOWN:
        raise DomainUnavailable(
            f"no labelled domain in {folders[0]}; expected <domain>/<class>/<picture>"
        )
    raise DomainUnavailable(
        f"{name} is not available: expected at least two domains as <domain>/<class>/<picture> in "
        f"{' or '.join(map(str, folders))}; {HINTS[name]}, or name a data root by argument or "
        f"{DATA_VARIABLE}"
    )


def folders_in(folder: Path) -> list[Path]:
    """Visible folders in a folder that may be missing."""
    return visible_folders(folder) if folder.is_dir() else []


def asked(
    name: str,
    folder: Path | None,
    domains: tuple[str, ...],
    sources: Sequence[str],
    target: str | None,
) -> tuple[str, ...]:
    """The domains that are named as sources, or all but the target; however accents are spelled.

    The target may be a folder without folders of classes, which is no domain here.
    """
    spelled = {one_spelling(domain): domain for domain in domains}
    flat = set() if folder is None else {one_spelling(path.name) for path in folders_in(folder)}
    unknown = [source for source in sources if one_spelling(source) not in spelled]
    if target is not None and one_spelling(target) not in spelled.keys() | flat:
        unknown.append(target)
    if unknown:
        others = sorted(flat - spelled.keys())
        raise ValueError(
            f"no domain {', '.join(unknown)} in {name}; there are: {', '.join(domains)}"
            + (f"; without labels: {', '.join(others)}" if others else "")
        )
    if sources:
        return tuple(spelled[one_spelling(source)] for source in sources)
    left = tuple(domain for word, domain in spelled.items() if word != one_spelling(target or ""))
    if not left:
        raise ValueError(f"{name} needs at least one labelled source domain beside {target}")
    return left


def without_classes(folder: Path) -> Iterator[str]:
    """Folders of a user's tree that hold pictures, and no folder."""
    for path in folders_in(folder):
        if not folders_in(path) and any_picture(path.iterdir()):
            yield path.name
