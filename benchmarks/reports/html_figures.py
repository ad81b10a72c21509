"""What a report says of how good an adapted model is: estimates of accuracy, label-free scores."""

from math import log

from adapters import Adaptation
from adapters.config import OUTCOME
from benchmarks.reports.html_page import table
from benchmarks.reports.tables import display_name

SCORE_MEANINGS = {
    "Information": "mutual information of image and prediction in nats: confident and diverse at "
    "once; 0 to {limit:.2f} here. The step is chosen by it.",
    "Confidence": "mean probability of the predicted class.",
    "Agreement": "share of images on which both classifiers of the network choose the same class.",
    "Diversity": "how evenly predictions spread over classes: 0 is one class only, 1 all alike.",
}


def estimated(adaptation: Adaptation) -> str:
    """Expected accuracies as bars, with the intervals that hold them 9 times in 10."""
    if adaptation.notes.get("meaningless"):
        return (
            "<p>No estimate: what the model says of an image and of the same image moved a little "
            "have next to nothing in common. These images mean nothing to this backbone.</p>"
        )
    if not adaptation.estimates:
        return (
            "<p>No estimate: this backbone was never rehearsed on mock targets. Pretrain one anew "
            "to have one.</p>"
        )
    rows = []
    for model, found in adaptation.estimates.items():
        kind = "after" if model == OUTCOME else "before"
        places = {"share": found.accuracy, "low": found.low, "high": found.high}
        style = ";".join(f"--{name}:{100 * at:.1f}%" for name, at in places.items())
        bar = f'<div class="estimate {kind}" style="{style}" aria-hidden="true"></div>'
        low, high = 100 * found.low, 100 * found.high
        rows.append(
            (
                display_name(model),
                bar,
                f"<b>{100 * found.accuracy:.0f} %</b> {low:.0f} to {high:.0f}",
            )
        )
    meaning = (
        "<p>Expected accuracy, estimated without labels from how right such predictions were on "
        "mock targets, held-out pictures of the sources in other styles; the interval holds the "
        "truth 9 times in 10 where the new domain is no stranger than those.</p>"
    )
    return meaning + table(rows, ("Model", "0 to 100 %", "90 % interval"), "estimates")


def scored(adaptation: Adaptation) -> str:
    """Label-free scores of all models, and what each means."""
    if not adaptation.scores:
        return ""  # an adapter file keeps none
    rows = [
        (
            display_name(model),
            f"{scores.information:.3f}",
            *(f"{100 * v:.1f} %" for v in (scores.confidence, scores.agreement, scores.diversity)),
        )
        for model, scores in adaptation.scores.items()
    ]
    limit = log(len(adaptation.backbone.class_names))
    meanings = "".join(
        f"<dt>{name}</dt><dd>{meaning.format(limit=limit)}</dd>"
        for name, meaning in SCORE_MEANINGS.items()
    )
    return table(rows, ("Model", *SCORE_MEANINGS), "numbers") + f"\n<dl>{meanings}</dl>"
