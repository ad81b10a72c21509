"""What a report shows of predictions: pictures with their classes, and how often each class is."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.reports.html_page import image, table

LISTED_CLASSES = 40  # at most, in the table of predicted classes
THUMBNAIL = 128  # pixels at most, a side


@dataclass(frozen=True)
class Predictions:
    """Class probabilities (M, N) of the same images before (source only) and after adaptation."""

    images: NDArray[np.uint8]
    names: Sequence[str]
    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Of which images the class is another (M,)."""
        return self.before.argmax(1) != self.after.argmax(1)


def sure_and_unsure(found: Predictions, class_names: Sequence[str], count: int) -> str:
    """The pictures of the surest and of the least sure predictions."""
    order = np.argsort(found.after.max(axis=1), kind="stable")
    groups = {"Most confident": order[::-1], "Least confident": order}
    return "\n".join(
        f"<h3>{heading}</h3>\n{_cards(found, ids[:count], class_names, False)}"
        for heading, ids in groups.items()
    )


def changed_pictures(found: Predictions, class_names: Sequence[str], count: int) -> str:
    """Pictures whose class is another than that of the source-only model."""
    ids = np.flatnonzero(found.changed)
    heading = f"<h3>Changed by adaptation: {len(ids):,} of {len(found.after):,}</h3>\n"
    return heading + _cards(found, ids[:count], class_names, True)


def _cards(
    found: Predictions, ids: NDArray[np.int64], class_names: Sequence[str], changed: bool
) -> str:
    cards = "".join(_card(found, int(n), class_names, changed) for n in ids)
    return f'<div class="pictures">{cards}</div>\n' if cards else "<p>None.</p>\n"


def _card(found: Predictions, n: int, class_names: Sequence[str], changed: bool) -> str:
    """A thumbnail with its class, how probable that is, and its name; of both models if changed."""
    models = {"was ": found.before, "now ": found.after} if changed else {"": found.after}
    texts = [
        f"{model}<b>{escape(class_names[int(of[n].argmax())])}</b> {100 * of[n].max():.0f}&nbsp;%"
        for model, of in models.items()
    ]
    picture = Image.fromarray(found.images[n])
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file, kind = BytesIO(), "png" if picture.width <= 48 else "jpeg"
    picture.save(file, kind, quality=85)
    name = escape(found.names[n])
    return (
        f'<figure title="{name}">{image(file.getvalue(), kind, found.names[n])}<figcaption>'
        f"{'<br>'.join(texts)}<small>{escape(Path(found.names[n]).name)}</small>"
        "</figcaption></figure>"
    )


def class_counts(found: Predictions, class_names: Sequence[str]) -> str:
    """How often each class is predicted, before and after adaptation, as bars."""
    counts = [
        np.bincount(of.argmax(axis=1), minlength=len(class_names))
        for of in (found.before, found.after)
    ]
    most = np.maximum(*counts)  # (N,)
    rows = []
    for n in np.sort(np.argsort(-most, kind="stable")[:LISTED_CLASSES]):
        shares = (f"{100 * of[n] / most.max():.1f}%" for of in counts)
        bars = [
            f'<div class="bar {kind}" style="--share:{share}">{of[n]:,}</div>'
            for kind, share, of in zip(("before", "after"), shares, counts, strict=True)
        ]
        rows.append((escape(class_names[int(n)]), *bars))
    hidden = len(class_names) - len(rows)
    more = f"; {hidden:,} rarer classes are not listed" if hidden else ""
    shown = table(rows, ("Class", "Source only", "Adapted"), "bars")
    said = f"<p>Of {len(found.after):,} images{more}.</p>"
    return f"<h3>Predicted classes</h3>\n{said}\n{shown}"
