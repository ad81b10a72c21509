"""The picture benchmarks: DomainNet, PACS, satellite, emoji, or a user's own labelled pictures.

Files are searched in `<root>/pictures/<name>/`, as `<domain>/<class>/<picture>`, with official
lists `<domain>_train.txt` and `<domain>_test.txt` beside the domains where a data set has them.
The emoji are drawn from pip packages (see `data_prep.emoji`). A class is known by the name of its
folder; domains may lack some.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from da_compose.folders import nearly_alike, one_spelling
from da_compose.trees import (
    LabelledPictures,
    at_most,
    of_classes,
    read_list,
    read_splits,
    read_tree,
    split,
)
from data_prep.caches import cache_folder
from data_prep.domainnet import CLASSES_126, DOMAINS
from data_prep.emoji import STYLES, draw_all, emoji_classes, package_versions
from data_prep.picture_cache import prepare_pictures
from data_prep.picture_folders import KNOWN, asked, find, without_classes
from data_prep.prepare import Origin, PreparedDomain, prepare
from data_prep.readers import RawDomain, RawSplit

PARTS = ("train", "test")
TEST_FRACTION = 0.2  # where there is no official split
ABSENT = -1  # no label: of a class that a domain lacks


@dataclass(frozen=True, kw_only=True)
class PictureBenchmark:
    """Domains that share classes, where their pictures come from, and what was left out.

    All of its domains are split with one seed: the emoji that one style is tested on are in the
    training split of none.
    """

    name: str
    domains: tuple[str, ...]
    class_names: tuple[str, ...]
    origin: Origin
    notes: tuple[str, ...] = ()
    folder: Path | None = None  # of the domains; None where they are drawn
    per_class: int | None = None  # pictures of a class in a split, at most
    seed: int = 0  # of the splits that are made here, and of what `per_class` keeps


class Listing(NamedTuple):
    """All pictures of one domain, and the name of each label."""

    train: LabelledPictures
    test: LabelledPictures
    names: Mapping[int, str]
    official: bool  # whether the split is the data set's own


def choose_picture_benchmark(
    name: str,
    data_root: Path | None = None,
    *,
    classes: Path | str | Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 0,
    sources: Sequence[str] = (),
    target: str | None = None,
) -> PictureBenchmark:
    """A benchmark by name, or `tree:<folder>`, or a folder, with the domains and classes it has.

    sources, target: only these domains, or all but the target, whose folders are never looked at.
    classes: only these, by name or in a file with a name a line; "126" is DomainNet's subset of
    that size (Saito et al. 2019). `DomainUnavailable` where the files are nowhere, `ValueError`
    for unknown names and damaged lists.
    """
    if per_class is not None and per_class < 1:
        raise ValueError(f"expected at least one picture of a class, got per_class={per_class}")
    if name == "emoji":
        folder, domains = None, STYLES
    else:
        folder, domains = find(name, data_root)
        name = folder.name
    domains = asked(name, folder, domains, sources, target)
    listings = {domain: _list(folder, domain, seed) for domain in domains}
    all_names = sorted({name for listing in listings.values() for name in listing.names.values()})
    chosen = PictureBenchmark(
        name=name,
        domains=domains,
        class_names=_kept(all_names, classes, name),
        origin="bundled" if folder is None else "files",
        folder=folder,
        per_class=per_class,
        seed=seed,
    )
    return replace(chosen, notes=tuple(_notes(chosen, listings, len(all_names))))


def load_picture_domain(
    benchmark: PictureBenchmark, domain: str, *, cache: Path | None = None, size: int = 64
) -> PreparedDomain:
    """One domain of a benchmark at size x size, prepared on first use in the cache's folder.

    Raises `ValueError` for an unknown domain, and where none of its pictures can be read.
    """
    if domain not in benchmark.domains:
        raise ValueError(
            f"expected a domain of {benchmark.name}, one of {', '.join(benchmark.domains)}; "
            f"got {domain!r}"
        )
    train, test = _chosen(benchmark, domain, _list(benchmark.folder, domain, benchmark.seed))
    name = f"{benchmark.name}-{domain}"
    cache = cache_folder() / "prepared" if cache is None else cache
    num_classes = len(benchmark.class_names)
    if benchmark.folder is None:

        def draw(pictures: LabelledPictures) -> RawSplit:
            codes = [path.name for path in pictures.paths]
            return RawSplit(draw_all(domain, codes, size), np.array(pictures.labels, np.uint8))

        prepared = prepare(
            name,
            lambda: RawDomain(draw(train), draw(test)),
            origin="bundled",
            identity={
                "packages": package_versions(),
                "emoji": [[str(path) for path in pictures.paths] for pictures in (train, test)],
                "labels": [train.labels, test.labels],
            },
            cache=cache,
            size=size,
            num_classes=num_classes,
        )
    else:
        prepared = prepare_pictures(
            name,
            train,
            test,
            num_classes=num_classes,
            origin="files",
            cache=cache,
            size=size,
        )
    return replace(prepared, name=domain)


def _list(folder: Path | None, domain: str, seed: int) -> Listing:
    """All pictures of a domain; emoji have their code points in the place of paths."""
    if folder is None:
        classes = emoji_classes()
        labels = [label for label, codes in enumerate(classes.values()) for _ in codes]
        paths = [Path(code) for codes in classes.values() for code in codes]
        pictures, names = LabelledPictures(tuple(paths), tuple(labels)), tuple(classes)
    else:
        lists = [folder / f"{domain}_{name}.txt" for name in PARTS]
        if all(file.is_file() for file in lists):
            train, test = (read_list(file, folder) for file in lists)
            return Listing(train, test, _names(domain, train, test), official=True)
        if parts := read_splits(folder / domain):
            train, test, names = parts
            return Listing(train, test, dict(enumerate(names)), official=True)
        pictures, names = read_tree(folder / domain)
    train, test = split(pictures, TEST_FRACTION, seed)
    return Listing(train, test, dict(enumerate(names)), official=False)


def _names(domain: str, *splits: LabelledPictures) -> Mapping[int, str]:
    """Label -> name of its folder; `ValueError` where the lists of a domain disagree."""
    names: dict[int, str] = {}
    for pictures in splits:
        for path, label in zip(pictures.paths, pictures.labels, strict=True):
            name = one_spelling(path.parent.name)
            if names.setdefault(label, name) != name:
                raise ValueError(
                    f"the lists of {domain}: expected one class a label, got {names[label]} and "
                    f"{name} for {label}; fetch the lists again"
                )
        if pictures.paths and not any(path.is_file() for path in pictures.paths):
            raise ValueError(
                f"the lists of {domain} name {len(pictures.paths):,} pictures and none of them is "
                f"there, such as {pictures.paths[0]}; unpack the pictures beside the lists"
            )
    return names


def _kept(
    names: Sequence[str], classes: Path | str | Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """The classes that are asked for, in the order of `names`."""
    if classes is None:
        return tuple(names)
    if str(classes) == "126":
        classes = CLASSES_126
    elif isinstance(classes, (Path, str)):
        try:
            lines = Path(classes).read_text(encoding="utf-8").splitlines()
        except (IsADirectoryError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{classes} is no text file ({error}); expected folder names, one a line"
            ) from error
        classes = [line.strip() for line in lines if line.strip()]
    classes = [one_spelling(name) for name in classes]
    if unknown := sorted(set(classes) - set(names)):
        raise ValueError(
            f"expected classes of {where}, such as {', '.join(names[:5])}; "
            f"got {', '.join(unknown)}; give folder names, one a line"
        )
    if len(set(classes)) < 2:
        raise ValueError(f"expected at least two classes of {where}, got {len(set(classes))}")
    return tuple(name for name in names if name in set(classes))


def _chosen(benchmark: PictureBenchmark, domain: str, listing: Listing) -> list[LabelledPictures]:
    """Train and test pictures of the benchmark's classes, labelled by their order there."""
    label = {name: label for label, name in listing.names.items()}
    keep = [label.get(name, ABSENT) for name in benchmark.class_names]
    if max(keep) == ABSENT:
        raise ValueError(
            f"{domain} has none of the classes {', '.join(benchmark.class_names)}; choose others, "
            "or leave the domain out of the folder"
        )
    splits = [of_classes(pictures, keep) for pictures in (listing.train, listing.test)]
    if benchmark.per_class is None:
        return splits
    return [at_most(pictures, benchmark.per_class, benchmark.seed) for pictures in splits]


def _notes(
    chosen: PictureBenchmark, listings: Mapping[str, Listing], num_classes: int
) -> Iterator[str]:
    """What a reader of results should know of the choice."""
    if chosen.name == "domainnet" and len(chosen.domains) < len(DOMAINS):
        missing = [domain for domain in DOMAINS if domain not in chosen.domains]
        yield f"{', '.join(missing)} missing: the run goes on without"
    if len(chosen.class_names) < num_classes:
        yield f"{len(chosen.class_names)} of {num_classes} classes"
    for pair in nearly_alike(chosen.class_names):
        yield f"{' and '.join(pair)} are different classes here"
    if chosen.per_class:
        yield f"at most {chosen.per_class} pictures of a class in each split"
    if chosen.folder and chosen.name not in KNOWN and (flat := [*without_classes(chosen.folder)]):
        yield f"{', '.join(flat)}: pictures without folders of classes, so no labelled domain"
    if split_here := [domain for domain in listings if not listings[domain].official]:
        which = "all styles alike, by emoji" if chosen.folder is None else ", ".join(split_here)
        yield f"no official split, so 80/20 in each class with seed {chosen.seed}: {which}"
    for domain, listing in listings.items():
        for split_name, pictures in zip(PARTS, _chosen(chosen, domain, listing), strict=True):
            absent = sorted(set(range(len(chosen.class_names))) - set(pictures.labels))
            if absent:
                names = ", ".join(chosen.class_names[label] for label in absent)
                yield f"{domain}: its {split_name} split has no pictures of {names}"
