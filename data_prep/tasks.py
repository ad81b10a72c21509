"""Labelled tasks: letters, hiragana and digits, as they are or as edges or blurred.

A task is named `<set>`, `<set>_edges` or `<set>_blur`; the filter works on the images as published,
before they are resized. Letters and hiragana are searched in `tasks/` of a data root, as
`<set>.npz` or their publishers' files in `<set>/`; digits as `load_digit_domain` does.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from da_compose.progress import phase
from data_prep.digits import DIGIT_DOMAINS, find_digits, notes_of, origins_of, prepare_found
from data_prep.filters import FILTERS
from data_prep.locations import DomainUnavailable, Location, data_folders, locate
from data_prep.prepare import PreparedDomain
from data_prep.readers import RawDomain

ORIGINAL = "original"  # no filter
# Names of the classes of each set, in the order of its labels
TASK_SETS: Mapping[str, tuple[str, ...]] = {
    "emnist_letters": tuple(string.ascii_lowercase),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    **dict.fromkeys(DIGIT_DOMAINS, tuple(string.digits)),
}
# Images in training and test; EMNIST's letters were published twice
OFFICIAL_SIZES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "emnist_letters": ((88_800, 14_800), (124_800, 20_800)),
    "kmnist": ((60_000, 10_000),),
}
SETS = ("emnist_letters", "mnist", "kmnist")
NEW_SETS = ("usps", "meter", "mnist_m")


@dataclass(frozen=True, kw_only=True)
class TaskBenchmark:
    """Sets and filters that make the tasks learned together, and tasks that come after them."""

    sets: tuple[str, ...]
    filters: tuple[str, ...] = (ORIGINAL, *FILTERS)
    transfer: tuple[str, ...]
    origin: str  # "files", "download", "bundled", or several joined by "+"
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of every set under every filter, set by set."""
        return tuple(
            name if kind == ORIGINAL else f"{name}_{kind}"
            for name in self.sets
            for kind in self.filters
        )


def task_classes(name: str) -> tuple[str, ...]:
    """Names of a task's classes in the order of its labels; `ValueError` for an unknown task."""
    return TASK_SETS[_set_and_filter(name)[0]]


def load_task(
    name: str,
    *,
    data_root: Path | None = None,
    cache: Path | None = None,
    size: int = 32,
    allow_download: bool = True,
) -> PreparedDomain:
    """One task at size x size, prepared on first use in `prepared/` of `cache_folder`.

    Raises `ValueError` for an unknown name, `DomainUnavailable` where the data cannot be had.
    """
    set_name, kind = _set_and_filter(name)
    with phase(f"preparing {name}"):
        if set_name in DIGIT_DOMAINS:
            found = find_digits(set_name, data_root, allow_download)
        else:
            found = locate(set_name, data_folders("tasks", data_root), allow_download)
        if kind != ORIGINAL:
            found = _filtered(found, kind)
        domain = prepare_found(name, found, len(TASK_SETS[set_name]), cache=cache, size=size)
    train, test = len(domain.train), len(domain.test)
    if (train, test) in OFFICIAL_SIZES.get(set_name, ((train, test),)):
        return domain
    note = f"{train:,} training and {test:,} test images, not the official split"
    return replace(domain, notes=(*domain.notes, note))


def choose_task_benchmark(
    data_root: Path | None = None, allow_download: bool = True, cache: Path | None = None
) -> TaskBenchmark:
    """The paper's nine tasks, EMNIST, MNIST and KMNIST under three filters, as far as can be had.

    Where MNIST is left alone the bundled `optdigits` joins it. New tasks, to transfer to, are
    digits of other origin, else `optdigits`, else sheared MNIST. Every change is in the notes. The
    unfiltered tasks are prepared on the way, so damaged files show here.
    """

    notes: list[str] = []

    def load(*names: str) -> dict[str, PreparedDomain]:
        found: dict[str, PreparedDomain] = {}
        for name in names:
            try:
                found[name] = load_task(
                    name, data_root=data_root, cache=cache, allow_download=allow_download
                )
            except DomainUnavailable:
                notes.append(f"{name} is missing")
        return found

    sets = load(*SETS)
    if len(sets) == 1:
        sets |= load("optdigits")
        notes.append("optdigits, bundled with scikit-learn, joins mnist instead")
    transfer = load(*NEW_SETS)
    if not transfer:
        stand_in = "mnist_shear" if "optdigits" in sets else "optdigits"
        transfer = load(stand_in)
        notes.append(f"{stand_in} is the new task instead")
    if "mnist_shear" in transfer:
        notes.append("mnist_shear shows the same digits as mnist")
    domains = [*sets.values(), *transfer.values()]
    return TaskBenchmark(
        sets=tuple(sets),
        transfer=tuple(transfer),
        origin=origins_of(domains),
        notes=(*notes, *notes_of(domains)),
    )


def _set_and_filter(name: str) -> tuple[str, str]:
    for kind in FILTERS:
        if (base := name.removesuffix(f"_{kind}")) != name and base in TASK_SETS:
            return base, kind
    if name not in TASK_SETS:
        endings = ", ".join(f"_{kind}" for kind in FILTERS)
        raise ValueError(
            f"expected a task, one of {', '.join(TASK_SETS)}, perhaps followed by one of "
            f"{endings}; got {name!r}"
        )
    return name, ORIGINAL


def _filtered(found: Location, kind: str) -> Location:
    """The same data set with every image filtered."""
    apply = FILTERS[kind]

    def read() -> RawDomain:
        return RawDomain(*(split._replace(images=apply(split.images)) for split in found.read()))

    return Location(found.origin, {**found.identity, "filter": kind}, read)
