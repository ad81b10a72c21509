"""The report of one adaptation: one HTML file, without labels, scripts or things from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters import Adaptation
from benchmarks.harness import measure
from benchmarks.harness.chosen_model import chosen_model
from benchmarks.reports.html_figures import TRUST, estimated, expected, scored, trust
from benchmarks.reports.html_page import curve, image, page, table
from benchmarks.reports.html_pictures import (
    Predictions,
    changed_pictures,
    class_counts,
    sure_and_unsure,
)
from benchmarks.reports.plots import plot_mixtures
from benchmarks.reports.tables import display_name
from da_compose import probabilities
from da_compose.context import undisturbed
from da_compose.inference import predict_logits
from da_compose.model.mixture import MixtureWeights
from da_compose.reading import read_images
from da_compose.storage.files import replacing

PREDICTED_IMAGES = 1000  # at most, a seeded sample of them
DRAWN_DOMAINS = 12  # at most, with the new one, in the heat map
LISTED_LETTERS = 300  # of class names; more are folded away
CURVE_NAMES = {"checked": "best checked information so far"}


@undisturbed()
def write_adaptation_report(
    path: str | Path,
    adaptation: Adaptation,
    images: Any,
    *,
    title: str,
    left_out: Iterable[tuple[str | Path, str]] = (),
    names: Sequence[str | Path] = (),
    command: str = "",
    predictions: int = 12,
    seed: int = 0,
) -> None:
    """Write one HTML file on how an adaptation went, whole or not at all.

    images: the unlabelled images it was made with, of any kind `adapt` takes; `names` of each, for
    the pictures shown. left_out: (path, reason) of each picture that could not be read.
    command: how the adaptation was made. predictions: pictures shown at most, of each sort.
    seed: of the sample of images that are predicted and shown.
    """
    pixels = read_images(images, adaptation.backbone.network.config.image_size)
    if len(names) not in (0, len(pixels)):
        raise ValueError(
            f"expected a name for each of {len(pixels)} images, got {len(names)}; "
            "leave out those of pictures that could not be read"
        )
    found = _predict(adaptation, pixels, names or [f"image {n}" for n in range(len(pixels))], seed)
    classes = adaptation.backbone.class_names
    sections = {
        "How accurate it is": estimated(adaptation),
        "What changed": changed_pictures(found, classes, predictions)
        + class_counts(found, classes),
        "May it be trusted": TRUST + sure_and_unsure(found, classes, predictions),
        "Pictures left out": _left_out(list(left_out)),
    }
    details = {
        "What was adapted": _facts(adaptation, len(pixels)),
        "Label-free scores": scored(adaptation),
        "Training": _training(adaptation),
        "Mixture weights": _mixtures(adaptation),
        "Verdict of the guard": _guard(adaptation.notes.get("guard")),
        "How it was made": _provenance(adaptation, command),
    }
    content = page(title, _summary(adaptation, found), sections, details)
    with replacing(Path(path)) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="replace")  # odd file names


def _predict(
    adaptation: Adaptation, pixels: NDArray[np.uint8], names: Sequence[str | Path], seed: int
) -> Predictions:
    """Predictions on all images, or on a seeded sample of many, in random order."""
    chosen = np.random.default_rng(seed).permutation(len(pixels))[:PREDICTED_IMAGES]
    network, some = adaptation.backbone.network, pixels[chosen]
    plain = chosen_model(adaptation.backbone, None).domain
    before, after = (
        probabilities(predict_logits(network, domain, some)).numpy()
        for domain in (plain, adaptation.domain)
    )
    return Predictions(some, [str(names[n]) for n in chosen], before, after)


def _summary(adaptation: Adaptation, found: Predictions) -> str:
    """The answers to what a user asks first, and what they are of."""
    changed = f"{found.changed.sum():,} of {len(found.after):,}"
    numbers = f"{adaptation.learned_parameters:,} numbers learned."
    answers = {
        "How good is it?": expected(adaptation),
        "What changed?": (changed, f"predictions of the source-only model; {numbers}"),
        "May it be trusted?": trust(adaptation.notes, adaptation.learned_parameters),
    }
    cards = "".join(
        f"<div><dt>{question}</dt><dd><b>{escape(word)}</b>{escape(why)}</dd></div>"
        for question, (word, why) in answers.items()
    )
    return (
        f"<p>Domain <b>{escape(adaptation.domain.name)}</b> beside the source-only model. "
        f"{_labels(adaptation.notes)}</p>\n"
        f'<dl class="answers">{cards}</dl>'
    )


def _labels(notes: Mapping[str, Any]) -> str:
    """Whether labels of the domain were used."""
    if not (count := notes.get("labels")):
        return "No labels were used, neither to adapt nor for this page."
    return f"It was adapted with the labels of {count:,} images; this page uses none."


def _facts(adaptation: Adaptation, num_images: int) -> str:
    backbone, learned = adaptation.backbone, adaptation.learned_parameters
    notes = {"strategy": "unknown", "trains": "unknown", "start": "unknown", "seed": "unknown"}
    notes |= adaptation.notes
    share = "unknown"
    if "target_share" in notes:
        own = f"{100 * notes['target_share']:.0f} % the new domain's own"
        share = own if notes["target_share"] == 1 else f"{own}, the rest the start's"
    size = backbone.network.config.image_size
    classes = escape(", ".join(backbone.class_names))
    if len(classes) > LISTED_LETTERS:
        classes = f"<details><summary>Names</summary>{classes}</details>"
    facts = {
        "New domain": escape(adaptation.domain.name),
        "Images": f"{num_images:,}, unlabelled, {size} × {size} pixels",
        "Backbone": f"<code>{backbone.fingerprint}</code>",
        "Source domains": escape(", ".join(backbone.knowledge)),
        f"{len(backbone.class_names)} classes": classes,
        "Strategy": escape(_strategy(notes)),
        "Trains": escape(notes["trains"].replace("_", " ")) if learned else "nothing",
        "Learned numbers": f"{learned:,}",
        "Adapter file": f"{_file_size(adaptation):,} bytes",
        "Start": escape(notes["start"]),
        "Batch-norm statistics": share,
        "Seed": escape(str(notes["seed"])),
    }
    return table(facts.items())


def _file_size(adaptation: Adaptation) -> int:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        adaptation.save(file)
        return file.stat().st_size


def _training(adaptation: Adaptation) -> str:
    """A curve of each figure that the strategy logged, the kept step marked."""
    history = adaptation.history
    if not history:
        return "" if adaptation.learned_parameters else "<p>This strategy takes no steps.</p>"
    steps, kept = [int(row["step"]) for row in history], adaptation.notes["kept_step"]
    curves = [
        curve(
            CURVE_NAMES.get(name, name.replace("_", " ")),
            steps,
            [row.get(name, nan) for row in history],
            kept,
        )
        for name in dict.fromkeys(key for row in history for key in row if key != "step")
    ]
    verdict = adaptation.notes.get("guard")
    if isinstance(verdict, Mapping) and verdict.get("trusted") is False:
        said = f"Kept: the start (dashed); the guard trusts none of the {len(history):,} steps."
    else:
        said = (
            f"Kept: {100 * adaptation.notes['kept_share']:.0f} % of the way from the start to the "
            f"iterate after step {kept:,} of {len(history):,} (dashed), the one whose predictions "
            "carry the most information."
        )
    return f'<p>{said}</p>\n<div class="plots">{"".join(curves)}</div>'


def _strategy(notes: Mapping[str, Any]) -> str:
    """The strategy in words, and what `auto` chose."""
    chosen = f"; chosen: {notes['chosen']}" if "chosen" in notes else ""
    return display_name(notes["strategy"]) + chosen


def _mixtures(adaptation: Adaptation) -> str:
    """Heat maps of the mixture weights (L, K) of the source domains and of the new one."""
    domain = adaptation.domain
    if not isinstance(domain.mixture, MixtureWeights):
        return ""
    sources = list(adaptation.backbone.knowledge)[: DRAWN_DOMAINS - 1]
    shown = {name: adaptation.backbone.network.domains[name] for name in sources}
    shown[f"{domain.name} (new)"] = domain
    mixtures = {name: d.mixture().detach().cpu().numpy() for name, d in shown.items()}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "mixtures.png"
        plot_mixtures(mixtures, file)
        alt = f"Mixture weights by layer and template of {', '.join(mixtures)}"
        return f'<div class="wide">{image(file.read_bytes(), "png", alt)}</div>'


def _left_out(pictures: Sequence[tuple[str | Path, str]]) -> str:
    if not pictures:
        return ""
    said = f"<p>{len(pictures):,} could not be read, and had no part in the adaptation.</p>"
    rows = ((escape(str(path)), escape(reason)) for path, reason in pictures)
    shown = table(rows, ("Picture", "Reason"))
    return f'{said}\n<div class="long" tabindex="0" role="region" aria-label="List">{shown}</div>'


def _guard(verdict: Mapping[str, Any] | str | None) -> str:
    if not verdict:
        return ""
    if isinstance(verdict, str):
        return f"<p>{escape(verdict)}</p>"
    rows = [
        (escape(key.replace("_", " ")), escape(f"{v:.4g}" if isinstance(v, float) else str(v)))
        for key, v in verdict.items()
    ]
    return table(rows)


def _provenance(adaptation: Adaptation, command: str) -> str:
    rows = {"Command": f"<code>{escape(command)}</code>"} if command else {}
    rows |= {
        "Versions": ", ".join(f"{name} {number}" for name, number in measure.versions().items()),
        "Commit": f"<code>{measure.commit()}</code>",
        "Device": escape(measure.device_name(adaptation.backbone.network.device)),
    }
    return table(rows.items())
