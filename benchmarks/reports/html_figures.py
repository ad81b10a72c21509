"""What a report says of how good an adapted model is: estimates of accuracy, label-free scores."""

from collections.abc import Mapping
from math import log
from typing import Any

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


TRUST = (
    "<p>The guard compares what was learned with the start that it was learned from. It is no "
    "warranty: it cannot see whether the start is right. Look at the pictures: are the sure ones "
    "right? To be certain, label a few dozen and run <code>da-compose evaluate</code>.</p>\n"
)


def expected(adaptation: Adaptation) -> tuple[str, str]:
    """The accuracy to expect in a word, and beside it the interval and what it was before."""
    found = adaptation.estimate
    if found is None:
        return "Not known", "there is no estimate; why is said below."
    before = adaptation.estimates.get("source_only")
    was = f"; of the source-only model {100 * before.accuracy:.0f} %" if before else ""
    low, high = 100 * found.low, 100 * found.high
    return (
        f"{100 * found.accuracy:.0f} %",
        f"accuracy to expect, with 90 % certainty {low:.0f} to {high:.0f}{was}.",
    )


def trust(notes: Mapping[str, Any], learned: int) -> tuple[str, str]:
    """What the guard said in a word, and why."""
    verdict = notes.get("guard")
    if notes.get("meaningless"):
        return "No", "these images look like nothing the sources held. Are they the right ones?"
    if isinstance(verdict, Mapping) and "trusted" in verdict:
        if verdict["trusted"]:
            return "The guard trusts it", f"{verdict.get('reason', '')} while it learned."
        return "Learning was refused", f"{verdict.get('reason', '')}. The result is the start."
    if not learned:
        return "Nothing was learned", "no step can have done harm; the start itself may be wrong."
    return "Not checked", "the guard was off, or what it said was not kept."


def estimated(adaptation: Adaptation) -> str:
    """Expected accuracies as bars, with the intervals that hold them 9 times in 10."""
    if adaptation.notes.get("meaningless"):
        return (
            "<p>No estimate: these images look like nothing the sources held. Either the model "
            "says of an image hardly anything that it says of the same image moved a little, or "
            "they are farther from all sources than pictures of one task are.</p>"
        )
    if not adaptation.estimates:
        return (
            "<p>No estimate: this backbone was never rehearsed, and has no two sources to compare. "
            "Pretrain one anew to have one.</p>"
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
        "<p>Expected accuracy, estimated without labels. The interval holds the truth 9 times in "
        "10 where the new domain is no stranger to the sources than they are to one another.</p>"
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
