"""What the commands do, apart from parsing and printing."""

import csv
import io
import os
import shlex
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from torch import Tensor

from adapters import load_adaptation
from adapters.start import make_start, plain_start_name
from benchmarks.cli.pretraining import choose_pictures, domain_notes
from benchmarks.cli.task_actions import task_name
from benchmarks.harness.benchmark import load_digits
from da_compose import Backbone, Domain, load_backbone, probabilities
from da_compose.images import ImageSet
from da_compose.inference import DomainModel, predict_logits
from da_compose.model.signature import format_signature, num_runs, sharpness, signature_of
from da_compose.pictures import PICTURES, list_pictures
from da_compose.reading import picture_batches, read_images, read_pictures
from da_compose.storage.export import check_format, export
from da_compose.storage.files import (
    BROKEN_ARCHIVE,
    check_readable_name,
    check_replaceable,
    load_tensors,
    understood,
)
from da_compose.trees import read_tree
from data_prep import (
    PreparedDomain,
    load_digit_domain,
    load_picture_domain,
    load_task,
    task_classes,
)

PICTURES_AT_ONCE = 512
SHADES = " ░▒▓█"  # of mixture weights from 0 to 1


def check_output(path: Path, *inputs: Path) -> None:
    """Raise, before any work, where the file `path` cannot be written or is one of the inputs."""
    check_replaceable(path)
    check_readable_name(path)
    if path.suffix.lower() in {*PICTURES, ".npz"}:  # it could be one that a folder is read for
        raise ValueError(f"{path} has the name of a picture or .npz file; name another to write")
    if path.exists() and any(other.exists() and path.samefile(other) for other in inputs):
        raise ValueError(f"{path} is read by this command; name another file to write")
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Raise OSError where `path` neither is nor can become a folder to write to."""
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{place} is a file, expected a folder; choose another path")
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written to; choose another path")


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
    image_size: int,
    classes: Path | None,
    per_class: int | None,
    data_root: Path | None,
) -> Iterator[str]:
    """The same of pictures, by default all domains; a warning lists each one that is left out."""
    chosen = choose_pictures(pictures, data_root, classes, per_class)
    yield from (f"note: {note}" for note in chosen.notes)
    for name in domains or chosen.domains:
        domain = load_picture_domain(chosen, name, size=image_size)
        yield from _described(domain)
        if left_out := [*_left_out(domain)]:
            warnings.warn("\n".join([f"{domain.name}: left out:", *left_out]), stacklevel=2)


def _described(domain: PreparedDomain) -> Iterator[str]:
    yield (
        f"{domain.name}: {len(domain.train):,} training and {len(domain.test):,} test images; "
        f"from: {domain.origin}; fingerprint {domain.fingerprint}"
    )
    yield from (f"note: {note}" for note in domain_notes(domain))


def _left_out(domain: PreparedDomain) -> Iterator[str]:
    """Path and reason of every picture that the domain lacks; duplicates are kept."""
    if domain.problems is not None:
        with domain.problems.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                if not row["reason"].startswith("duplicate of "):
                    yield f"{row['path']}: {row['reason']}"


def predictions(backbone: Backbone, domain: Domain, images: Path) -> Iterator[tuple[str, str, str]]:
    """(path, class, confidence) of every readable picture, a few hundred at a time."""
    names, size = backbone.class_names_of(domain), backbone.network.config.image_size
    model = DomainModel(backbone, domain)
    if images.suffix.lower() == ".npz":
        pixels = read_images(images, size)
        batches = [(pixels, [f"{images}[{n}]" for n in range(len(pixels))])]
    else:
        batches = picture_batches(list_pictures(images), size, PICTURES_AT_ONCE)
    for pixels, paths in batches:
        confidences, labels = model.predict_proba(pixels).max(dim=1)
        for path, label, confidence in zip(paths, labels, confidences, strict=True):
            yield str(path), names[int(label)], f"{float(confidence):.4f}"


def csv_line(*fields: str) -> str:
    """One line of CSV; a field with a comma, a quote or any sort of line end is quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(fields)  # it quotes what its line ends hold
    return line.getvalue().removesuffix("\r\n") + "\n"


def evaluation(
    backbone: Backbone, adapter: Path | None, domain: str, data_root: Path | None
) -> Iterator[str]:
    """Lines with the accuracy on a test split: in all, then class by class."""
    own = task_name(domain)
    is_own = not backbone.knowledge and own in backbone.network.domains
    chosen = chosen_domain(backbone, adapter, own if is_own and adapter is None else None)
    names, size = backbone.class_names_of(chosen), backbone.network.config.image_size
    test = labelled_test_split(domain, names, size, data_root)
    if not 0 <= test.labels.min() <= test.labels.max() < len(names):
        raise ValueError(
            f"labels of {domain} must be in 0..{len(names) - 1}, the model's classes, "
            f"got {test.labels.min()}..{test.labels.max()}"
        )
    logits = predict_logits(backbone.network, chosen, test.images)
    right = probabilities(logits).argmax(dim=1).numpy() == test.labels
    kind = "pictures of the folder" if Path(domain).is_dir() else "test images"
    yield f"accuracy {100 * right.mean():.2f} % of {len(test):,} {kind}"
    for label in np.unique(test.labels):
        of_class = test.labels == label
        yield (
            f"  class {names[label]}: {100 * right[of_class].mean():.2f} % of {of_class.sum():,}"
        )


def chosen_domain(backbone: Backbone, adapter: Path | None, name: str | None = None) -> Domain:
    """The adapter's domain, the backbone's domain of this name, or the plain source-only one."""
    if adapter is not None and name is not None:
        raise ValueError("--adapter and --domain both name a domain; leave one of the two out")
    if adapter is not None:
        return load_adaptation(adapter, backbone).domain
    if name is not None:
        return backbone.network.domains[name]
    if not backbone.knowledge:
        raise ValueError(
            "this backbone knows no source domain, so there is no source-only model; expected "
            f"--adapter, or as --domain one of its own: {', '.join(backbone.network.domains.names)}"
        )
    size, plain = backbone.network.config.image_size, plain_start_name(backbone)
    start = make_start(backbone, plain, plain, np.zeros((1, size, size), dtype=np.uint8))
    start.use_statistics(0.0)  # none of that black image's
    return start.target


def exported(backbone: Path, adapter: Path | None, domain: str | None, out: Path) -> Iterator[str]:
    """Export one domain of a backbone, or an adapter's, to `out`; lines that say what it is."""
    check_format(out)
    check_output(out, backbone, *([] if adapter is None else [adapter]))
    loaded = load_backbone(backbone)
    chosen = chosen_domain(loaded, adapter, domain)
    difference = export(loaded, chosen, out)
    config = loaded.network.config
    shape = f"{config.image_channels}, {config.image_size}, {config.image_size}"
    yield f"wrote {out}: domain {chosen.name}, {out.stat().st_size:,} bytes"
    yield f"input: float32 pixels in [0, 1], (batch, {shape})"
    yield f"output: float32 class probabilities, (batch, {len(loaded.class_names_of(chosen))})"
    yield f"largest difference from PyTorch on random images: {difference:.1e}"


def labelled_test_split(
    domain: str, class_names: tuple[str, ...], size: int, data_root: Path | None
) -> ImageSet:
    """Test split of a digit domain or task by name, or of an `.npz` with test_images, test_labels.

    Or all readable pictures of a folder <class>/<picture>. Its classes are `class_names`, as are
    those of a name.
    """
    path = Path(domain)
    try:
        known = task_classes(domain)
    except ValueError as error:
        if path.is_dir():
            return _labelled_pictures(path, class_names, size)
        if path.suffix == ".npz" and path.is_file():
            return _labelled_archive(path, size)
        raise ValueError(f"{error}, and no .npz file or folder <class>/<picture>") from error
    if known != class_names:
        raise ValueError(
            f"{domain} has the classes {', '.join(known)}, the model has {', '.join(class_names)}; "
            "evaluate it on images of these"
        )
    return load_task(domain, data_root=data_root, size=size).test


def _labelled_pictures(folder: Path, class_names: tuple[str, ...], size: int) -> ImageSet:
    pictures, _ = read_tree(folder, class_names)
    images, kept = read_pictures(pictures.paths, size)
    label = dict(zip(pictures.paths, pictures.labels, strict=True))
    return ImageSet(images, np.array([label[file] for file in kept], dtype=np.int64))


def _labelled_archive(path: Path, size: int) -> ImageSet:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            parts = ("test_images", "test_labels")
            held = [part for part in parts if f"{part}.npy" in archive.namelist()]
            arrays = {part: np.load(archive.open(f"{part}.npy")) for part in held}
    except BROKEN_ARCHIVE as error:
        raise ValueError(f"{path} is not a whole .npz file of plain arrays ({error})") from error
    if len(held) < len(parts):
        raise ValueError(f"{path} lacks {', '.join(part for part in parts if part not in held)}")
    images, labels = (arrays[part] for part in parts)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels in {path} must be whole numbers, got {labels.dtype}")
    return ImageSet(read_images(images, size), labels.astype(np.int64))


def description(path: Path) -> list[str]:
    """Lines that say what a backbone or adapter file holds."""
    with understood(path):
        return [*_described_file(path)]


def _described_file(path: Path) -> Iterator[str]:
    tensors, metadata = load_tensors(path, "backbone", "adapter")
    yield f"{path}: {metadata['kind']}, {path.stat().st_size:,} bytes"
    yield f"fingerprint {metadata['fingerprint']}, written by {metadata['versions']}"
    parts = metadata.get("own_parts", {})
    own = {name: part["own_classes"] for name, part in parts.items() if part.get("own_classes")}
    if not own or len(own) < len(parts):
        yield f"classes: {', '.join(metadata['class_names'])}"
    yield from (f"classes of {name}: {', '.join(classes)}" for name, classes in own.items())
    if metadata["kind"] == "backbone":
        config = load_backbone(path).network.config
        yield f"network: {config}"
        if config.signature is not None:
            yield f"fixed signature {format_signature(config.signature)}"
        yield f"domains: {', '.join(metadata['domains'])}"
    else:
        yield f"domain: {metadata['domain']}"
    yield f"notes: {metadata['notes']}"
    for name, tensor in tensors.items():
        if name.endswith("mixture.xi"):
            yield f"mixture weights of {_domain_of(name, metadata)}, a line a layer"
            yield from _drawn(tensor.softmax(dim=-1))


def _domain_of(name: str, metadata: Mapping[str, Any]) -> str:
    """The domain that a tensor `network.domains._domains.<number>...` of a file belongs to."""
    numbers = [part for part in name.split(".") if part.isdigit()]
    return metadata["domains"][int(numbers[0])] if numbers else metadata["domain"]


def _drawn(mixture: Tensor) -> Iterator[str]:
    """A mixture (L, K) in figures, then each layer's weights as numbers and as shades."""
    signature = signature_of(mixture)
    yield (
        f"signature {format_signature(signature)}; runs {num_runs(signature)}; "
        f"mean sharpness {sharpness(mixture).mean():.2f}"
    )
    shades = mixture.nan_to_num() * (len(SHADES) - 1)  # a xi that diverged can be looked at, too
    for weights, row in zip(mixture.tolist(), shades.round().int().tolist(), strict=True):
        numbers = " ".join(f"{weight:.2f}" for weight in weights)
        yield f"  {numbers}  |{''.join(SHADES[shade] for shade in row)}|"


def command_line(context: click.Context) -> str:
    """The command that runs, with every option spelled out, as a shell takes it."""
    words = ["da-compose", str(context.info_name)]
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if isinstance(value, bool):
            words += (option.opts if value else option.secondary_opts)[:1]
        elif value is not None:
            words += [option.opts[0], str(value)]
    return shlex.join(words)
