"""What commands print for scripts: one JSON document, and nothing else with --quiet."""

import json

import pytest
from click import ClickException

from benchmarks.cli.main import warn
from benchmarks.cli.predict import predict
from tests.benchmarks.calls import commands_of, succeed
from tests.snippets import ROOT

KEYS = {
    "adapt": {
        "adapter", "report", "domain", "images", "left_out", "strategy", "start",
        "learned_parameters", "meaningless", "estimate", "estimates", "guard", "scores",
    },
    "predict": {"classes", "calibrated", "predictions"},
    "evaluate": {"domain", "folder", "images", "accuracy", "estimate", "classes"},
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_a_result_is_one_json_document_of_known_keys(user_files, name):
    ended = succeed(*commands_of(user_files)[name], "--json", "--quiet")
    found = json.loads(ended.stdout)
    assert set(found) == KEYS[name] and ended.stderr == ""
    if name == "predict":
        assert set(found["predictions"][0]) == {"path", "class", "confidence"}
    if name == "evaluate":
        parts = found["classes"].values()
        right = sum(part["accuracy"] * part["images"] for part in parts)
        assert right == pytest.approx(found["accuracy"] * found["images"])


def test_the_page_for_users_names_every_key():
    text = (ROOT / "docs" / "guides" / "shell.md").read_text(encoding="utf-8")
    assert [key for keys in KEYS.values() for key in keys if f"`{key}`" not in text] == []


def test_progress_is_on_standard_error_and_may_be_off(user_files, monkeypatch):
    monkeypatch.setattr("da_compose.progress.FIRST_LINE", 0.0)
    command = commands_of(user_files)["adapt"]
    said = succeed(*command).stderr
    assert "adapting to out: done in" in said and "pictures; classes of the backbone: " in said
    assert succeed(*command, "--quiet").stderr == ""


def test_predictions_that_go_nowhere_are_refused(user_files, monkeypatch):
    monkeypatch.setattr("benchmarks.cli.predict.sys.stdout", None)
    with pytest.raises(ClickException, match="standard output is closed"):
        predict.callback(user_files.backbone, None, None, user_files.pictures, False)  # pyright: ignore[reportOptionalCall]


def test_a_warning_that_cannot_be_shown_ends_nothing(monkeypatch):
    said = []

    def full(text: str, **_):
        said.append(text)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchmarks.cli.main.click.echo", full)
    warn("all nearly black")
    assert said == ["warning: all nearly black"]
