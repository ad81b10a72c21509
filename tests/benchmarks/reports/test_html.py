import base64
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapters import STRATEGIES, Adaptation, GuardConfig, adapt, load_adaptation
from benchmarks.reports import html, html_pictures
from benchmarks.reports.html import write_adaptation_report
from benchmarks.reports.html_figures import trust
from da_compose import Backbone, load_backbone
from tests.benchmarks.pages import Page, read, skip_plots

ODD = '<b>&"'
NAMES = (ODD, "it's", *"23456789")
LEARNING = [*STRATEGIES]


def random_images(count: int, shape: tuple[int, ...] = (32, 32, 3)) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def drawn() -> None:
    """Asks for true plots."""


@pytest.fixture(autouse=True)
def _without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots, which are slow, where a test does not ask for them."""
    if "drawn" not in request.fixturenames:
        skip_plots(monkeypatch)


@pytest.fixture
def make(backbone: Backbone) -> Callable[..., Adaptation]:
    def make(strategy: str = "information_maximization", **options) -> Adaptation:
        odd = replace(backbone, class_names=NAMES)
        return adapt(odd, random_images(20), strategy, name="site-7", steps=3, **options)

    return make


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., Page]:
    def write(
        adaptation: Adaptation, images: Any = None, title: str = "Site 7", **options: Any
    ) -> Page:
        path = tmp_path / "report.html"
        shown = random_images(20) if images is None else images
        write_adaptation_report(path, adaptation, shown, title=title, **options)
        return read(path)

    return write


def test_every_part_is_there_in_order(make, report):
    adaptation = make(seed=5)
    adaptation.notes["guard"] = {"verdict": "kept", "gain": 0.123456}
    page = report(adaptation, left_out=[("a.png", "truncated")], command="da-compose adapt --x")
    assert list(page.text)[1:] == [
        "How accurate it is", "What changed", "May it be trusted", "Pictures left out",
        "What was adapted", "Label-free scores", "Training", "Mixture weights",
        "Verdict of the guard", "How it was made",
    ]  # fmt: skip
    facts = page.text["What was adapted"]
    for fact in (
        "Backbone|" + adaptation.backbone.fingerprint, "Source domains|mnist, meter|",
        "New domain|site-7|", "Images|20, unlabelled", "Strategy|Information maximization|",
        "Trains|mixture weights|", "Learned numbers|4|", f"Start|{adaptation.notes['start']}|",
        f"statistics|{100 * adaptation.notes['target_share']:.0f} % the new domain's", "Seed|5|",
    ):  # fmt: skip
        assert fact in facts
    scores = page.text["Label-free scores"]
    for model, found in zip(
        ("Source only", "AdaBN", "Start", "Adapted"), adaptation.scores.values(), strict=True
    ):
        assert f"{model}|{found.information:.3f}|{100 * found.confidence:.1f} %|" in scores
    assert f"after step {adaptation.notes['kept_step']} of 3" in page.text["Training"]
    assert "a.png|truncated|" in page.text["Pictures left out"]
    assert "verdict|kept|" in page.text["Verdict of the guard"]
    assert "gain|0.1235|" in page.text["Verdict of the guard"]
    made = page.text["How it was made"]
    assert "da-compose adapt --x" in made and "torch " in made and "abc1234" in made


def test_a_refusal_of_the_guard_is_not_called_the_best_iterate(make, report):
    lenient = GuardConfig(most_changed=1.0, most_changed_unsure=1.0, least_diversity=0.0)
    options = {"trains": "input_adapter", "learning_rate": 1.0, "prior_images": 0}  # changes much
    kept = make(guard_config=lenient, **options)
    assert "the most information" in report(kept).text["Training"]
    refused = make(guard_config=GuardConfig(most_changed=0.0), **options)
    assert refused.notes["guard"]["trusted"] is False
    said = report(refused).text["Training"]
    assert "Kept: the start" in said and "the most information" not in said


def test_what_a_user_asks_first_is_answered_first(make, report):
    adaptation = make()
    assert "May it be trusted?|No|these images look like nothing" in report(adaptation).text[""]
    del adaptation.notes["meaningless"]
    adaptation.notes["estimates"] = {
        name: {"accuracy": at, "low": 0.7, "high": 0.9}
        for name, at in (("source_only", 0.6), ("adapted", 0.8))
    }
    adaptation.notes["guard"] = {"trusted": False, "reason": "so it is"}
    assert "May it be trusted?|Learning was refused|so it is" in report(adaptation).text[""]
    adaptation.notes["guard"]["trusted"] = True
    text = report(adaptation).text[""]
    assert "May it be trusted?|The guard trusts it|so it is" in text
    assert "How good is it?|80 %|accuracy to expect, with 90 % certainty 70 to 90" in text
    assert " of 20|predictions of the source-only model; 4 numbers learned.|" in text
    del adaptation.notes["guard"]
    assert "Not checked|" in report(adaptation).text[""]
    assert trust({}, 0)[0] == "Nothing was learned"


def test_labels_that_were_used_are_owned_up_to(make, report):
    adaptation = make()
    assert "No labels were used" in report(adaptation).text[""]
    adaptation.notes["labels"] = 6  # as `adapt_with_labels` says
    text = report(adaptation).text[""]
    assert "the labels of 6 images" in text and "No labels" not in text


def test_estimates_are_bars_with_intervals_or_are_said_to_be_missing(make, report):
    adaptation = make()
    assert (
        "look like nothing the sources held" in report(adaptation).text["How accurate it is"]
    )  # random ones
    del adaptation.notes["meaningless"]
    assert "never rehearsed" in report(adaptation).text["How accurate it is"]
    found = {"accuracy": 0.81, "low": 0.74, "high": 0.87}
    adaptation.notes["estimates"] = {"source_only": found, "adapted": found | {"low": 0.7}}
    said = report(adaptation).text["How accurate it is"]
    assert "Source only|81 %| 74 to 87|" in said and "Adapted|81 %| 70 to 87|" in said


def test_parts_without_content_are_left_out(make, report):
    text = report(make(guard=False)).text
    assert "Pictures left out" not in text and "Verdict of the guard" not in text
    assert "Command" not in text["How it was made"]


def test_a_verdict_in_words_is_shown(make, report):
    adaptation = make()
    adaptation.notes["guard"] = f"kept {ODD}"
    assert f"kept {ODD}" in report(adaptation).text["Verdict of the guard"].replace("|", "")


def test_the_size_is_that_of_the_adapter_file(make, report, tmp_path):
    adaptation = make()
    adaptation.save(tmp_path / "adapter.safetensors")
    size = (tmp_path / "adapter.safetensors").stat().st_size
    assert f"Adapter file|{size:,} bytes|" in report(adaptation).text["What was adapted"]


def test_nothing_is_loaded_from_elsewhere(drawn, make, report, tmp_path):
    page = report(make())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe", text)
    [policy] = [m["content"] for m in page.named("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'")
    assert len(text) < 1_500_000
    for image in page.named("img"):
        found = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"])
        assert found
        kind, code = found.groups()
        with Image.open(BytesIO(base64.b64decode(code))) as picture:
            assert picture.format == kind.upper()
            assert np.asarray(picture).var() > 0
        assert image["alt"]


def test_it_is_a_page_for_phones_dark_rooms_and_screen_readers(make, report, tmp_path):
    page = report(make())
    assert page.named("html") == [{"lang": "en"}]
    [viewport] = [m["content"] for m in page.named("meta") if m.get("name") == "viewport"]
    assert viewport.startswith("width=device-width")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    summaries = [place for place, (tag, _) in enumerate(page.tags) if tag == "summary"]
    assert [page.tags[place + 1][0] for place in summaries] == ["h2"] * len(summaries) != []
    assert len(page.named("h1")) == 1
    assert {cell["scope"] for cell in page.named("th")} == {"row", "col"}


def test_names_and_titles_are_escaped(make, report):
    odd = f"{ODD}/<script>alert(1)</script>&amp;.png"
    page = report(
        make(),
        title=odd,
        names=[odd] * 20,
        left_out=[(Path(odd), f"reason {ODD}")],
        command=f"da-compose {ODD}",
    )
    text = {heading: content.replace("|", "") for heading, content in page.text.items()}
    assert text[""].strip().startswith(odd)  # title
    assert ODD in text["What was adapted"] and ODD in text["What changed"]
    assert odd in text["Pictures left out"] and f"reason {ODD}" in text["Pictures left out"]
    assert f"da-compose {ODD}" in text["How it was made"]
    assert page.named("figure")[0]["title"] == odd
    assert odd in [image["alt"] for image in page.named("img")]
    assert not page.named("script")


def test_a_file_name_that_is_no_text_is_shown_somehow(make, report):
    assert "a?.png" in report(make(), left_out=[("a\udcff.png", "cut")]).text["Pictures left out"]


@pytest.mark.parametrize("strategy", LEARNING)
def test_every_figure_that_a_strategy_logs_has_a_curve(make, report, monkeypatch, strategy):
    curves = {}

    def remember(title: str, steps: list, values: list, marked: int) -> str:
        curves[title] = (steps, values, marked)
        return ""

    monkeypatch.setattr(html, "curve", remember)
    adaptation = make(strategy)
    report(adaptation)
    first, *_ = adaptation.history
    assert len(curves) == len(first) - 1 >= 2
    for name in set(first) - {"step"}:
        values = [row[name] for row in adaptation.history]
        title = html.CURVE_NAMES.get(name, name.replace("_", " "))
        assert curves[title] == ([1, 2, 3], values, adaptation.notes["kept_step"])


def test_a_curve_says_in_words_where_it_goes(drawn, make, report):
    adaptation = make("moment_matching")
    alts = [image["alt"] for image in report(adaptation).named("img")]
    first, last = (adaptation.history[n]["moment_distance"] for n in (0, -1))
    assert f"moment distance: {first:.4g} at the first step, {last:.4g} at the last" in alts
    assert "Mixture weights by layer and template of mnist, meter, site-7 (new)" in alts


@pytest.mark.parametrize("strategy", ["source_only", "batch_norm"])
def test_a_strategy_without_steps_has_no_curves(make, report, strategy):
    page = report(make(strategy))
    assert page.text["Training"].strip("|\n") == "This strategy takes no steps."
    assert "Trains|nothing|" in page.text["What was adapted"]


def test_an_unshared_network_has_no_mixture_weights_to_show(unshared_backbone, report):
    images = random_images(20)
    page = report(adapt(unshared_backbone, images, trains="input_adapter", steps=2), images)
    assert "Mixture weights" not in page.text and "Training" in page.text
    assert "Trains|input adapter|" in page.text["What was adapted"]


def test_an_adapter_from_its_file_has_a_report_too(user_files, report):
    adaptation = load_adaptation(user_files.adapter, load_backbone(user_files.backbone))
    text = report(adaptation, user_files.pictures).text
    assert "Mixture weights" in text and "What changed" in text
    assert "Label-free scores" not in text and "Training" not in text


def shown(page: Page) -> list[list[str]]:
    """Titles of the pictures shown, group by group."""
    groups = []
    for tag, attributes in page.tags:
        if tag == "h3":
            groups.append([])
        elif tag == "figure":
            groups[-1].append(attributes["title"])
    return groups


def test_pictures_shown_are_the_most_and_least_confident_and_the_changed(make, report):
    adaptation, images = make(), random_images(20)
    before = make("source_only").predict(images)
    confidence, after = adaptation.predict_proba(images).max(dim=1)
    names = [f"scans/{number}.png" for number in range(20)]
    page = report(adaptation, names=names, predictions=4)
    changed, _, most, least = shown(page)  # the second is of predicted classes
    order = confidence.argsort().tolist()
    assert least == [names[n] for n in order[:4]] and most == [names[n] for n in order[:-5:-1]]
    truly = [names[n] for n in (before != after).nonzero().flatten().tolist()]
    assert len(changed) == min(4, len(truly)) and set(changed) <= set(truly)
    heading = f"Changed by adaptation: {len(truly)} of 20"
    assert heading in page.text["What changed"]
    surest = order[-1]
    said = f"Most confident|\n|{NAMES[int(after[surest])]}| {100 * confidence[surest]:.0f}\xa0%|"
    assert said in page.text["May it be trusted"]


def test_classes_are_counted_before_and_after(make, report):
    adaptation, images = make(), random_images(20)
    counts = [
        np.bincount(model.predict(images), minlength=10)
        for model in (make("source_only"), adaptation)
    ]
    text = report(adaptation).text["What changed"].replace("\n|", "").replace("\n", "")
    for name, before, after in zip(NAMES[2:], *(of[2:] for of in counts), strict=True):
        assert f"|{name}|{before}|{after}|" in text
    assert "Of 20 images." in text


def test_many_images_and_classes_are_cut_short(make, report, monkeypatch):
    monkeypatch.setattr(html, "PREDICTED_IMAGES", 8)
    monkeypatch.setattr(html_pictures, "LISTED_CLASSES", 3)
    monkeypatch.setattr(html, "LISTED_LETTERS", 5)
    page = report(make())
    assert "Of 8 images; 7 rarer classes are not listed" in page.text["What changed"]
    assert len({title for group in shown(page) for title in group}) <= 8
    assert "Names|" in page.text["What was adapted"]
    assert shown(page) == shown(report(make())) != shown(report(make(), seed=1))


def test_no_label_can_leak(make, report, tmp_path):
    assert not any(
        "label" in name for name in inspect.signature(write_adaptation_report).parameters
    )
    adaptation = make()
    pages = []
    for shift in (0, 1):
        report(adaptation, [(image, n + shift) for n, image in enumerate(random_images(20))])
        pages.append((tmp_path / "report.html").read_bytes())
    report(adaptation)
    assert pages[0] == pages[1] == (tmp_path / "report.html").read_bytes()


def test_writing_changes_nothing_in_the_adaptation(make, report):
    adaptation = make()
    state = {n: t.clone() for n, t in adaptation.domain.state_dict().items()}
    notes = dict(adaptation.notes)
    report(adaptation)
    assert all(t.equal(state[n]) for n, t in adaptation.domain.state_dict().items())
    assert adaptation.notes == notes


def test_large_grey_pictures_become_small_thumbnails(make, report, monkeypatch):
    monkeypatch.setattr(html_pictures, "THUMBNAIL", 20)
    page = report(make(), random_images(20, (50, 40)))
    [code] = {
        len(Image.open(BytesIO(base64.b64decode(i["src"].split(",")[1]))).getbands())
        for i in page.named("img")
        if i["alt"].startswith("image ")
    }
    assert code == 1


def test_names_of_other_images_are_refused(make, report, tmp_path):
    with pytest.raises(ValueError, match="a name for each of 20 images, got 3"):
        report(make(), names=["a", "b", "c"])
    assert not list(tmp_path.glob("*.html"))


def test_a_report_that_fails_leaves_the_old_one_whole(make, report, tmp_path, monkeypatch):
    report(make())
    old = (tmp_path / "report.html").read_bytes()

    def full(path: Path, *_, **__):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        report(make())
    assert (tmp_path / "report.html").read_bytes() == old
    assert [path.name for path in tmp_path.glob("*report*")] == ["report.html"]
