"""The commands, used rightly."""

import csv
import io
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import Result

from benchmarks.cli import predict as predict_cli
from benchmarks.cli.main import main
from benchmarks.harness.rows import read_rows
from da_compose import load_backbone, probabilities
from da_compose.starts import make_start
from da_compose.training.run import STATE
from tests.benchmarks.calls import refuse, succeed

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors


def every_command(
    group: click.Group, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield names, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command, (*names, name))
        else:
            yield (*names, name), command


COMMANDS = [names for names, _ in every_command(main)]


@pytest.mark.parametrize("names", COMMANDS, ids=lambda names: " ".join(names) or "da-compose")
def test_help_shows_an_example(names):
    assert f"Example: da-compose {' '.join(names)}".strip() in succeed(*names, "--help").stdout


def test_version_is_shown():
    assert version("da-compose") in succeed("--version").stdout


# Used rightly


def test_prepare_says_what_and_where_from(data_root):
    lines = succeed("prepare", "usps", "mnist_shear", "--data", data_root).stdout.splitlines()
    assert lines[0].startswith("usps: 30 training and 20 test images; from: files; fingerprint ")
    assert lines[1].startswith("mnist_shear: 30 training")
    assert len(lines) == 2


def test_prepare_without_names_prepares_the_benchmark(data_root):
    lines = succeed("prepare", "--data", data_root).stdout.splitlines()
    assert {line.split(":")[0] for line in lines if not line.startswith("note")} == {
        "mnist", "mnist_shot_noise", "mnist_shear", "mnist_scale", "meter", "usps",
    }  # fmt: skip
    assert any(line.startswith("note: svhn is missing") for line in lines)


def test_the_data_root_is_read_from_the_environment(data_root, monkeypatch):
    monkeypatch.setenv("DA_COMPOSE_DATA", str(data_root))
    assert "from: files" in succeed("prepare", "usps").stdout


@pytest.mark.parametrize("network", ["compositional", "unshared"])
def test_pretrain_writes_a_backbone_and_its_log_alone(data_root, tmp_path, network):
    out = tmp_path / "run" / "backbone.safetensors"
    succeed("pretrain", out, "--steps", 2, "--data", data_root, "--network", network)
    written = load_backbone(out)
    assert list(written.knowledge) == [
        "mnist", "mnist_shot_noise", "mnist_shear", "mnist_scale", "meter",
    ]  # fmt: skip
    assert {path.name for path in out.parent.iterdir()} == {out.name, "pretrain.jsonl"}


def test_pretrain_takes_the_sources_it_is_given(data_root, tmp_path):
    out = tmp_path / "backbone.safetensors"
    options = ("--steps", 2, "--recipe", "paper", "--data", data_root)
    succeed("pretrain", out, *options, "--source", "usps", "--source", "mnist")
    assert list(load_backbone(out).knowledge) == ["usps", "mnist"]


def test_adapt_writes_a_file_that_predict_and_inspect_read(user_files):
    out = user_files.folder / "new" / "site-8.safetensors"
    options = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    said = succeed("adapt", *options, "--out", out, "--steps", 2).stdout
    assert "4 learned numbers" in said and f"{out.stat().st_size:,} bytes" in said
    assert "domain: site-8" in succeed("inspect", out).stdout
    succeed("predict", "--backbone", user_files.backbone, "--adapter", out, user_files.pictures)


def test_adapt_makes_a_domain_name_of_any_file_name(user_files):
    out = user_files.folder / "site 7 (new).safetensors"
    options = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    succeed("adapt", *options, "--out", out, "--steps", 1)
    assert "domain: site-7-new" in succeed("inspect", out).stdout


def test_adapt_in_bfloat16_writes_what_predicts(user_files):
    out = user_files.folder / "new.safetensors"
    options = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    succeed("adapt", *options, "--out", out, "--steps", 2, "--bfloat16")
    predict = ("predict", "--backbone", user_files.backbone, "--adapter", out, user_files.pictures)
    assert succeed(*predict).stdout.startswith("path,class,confidence")


def test_adapt_says_the_verdict_of_the_guard_unless_it_is_off(user_files):
    out = user_files.folder / "new.safetensors"
    options = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    report = user_files.folder / "new.html"
    adapt = ("adapt", *options, "--out", out, "--steps", 1, "--report", report)
    (said,) = [li for li in succeed(*adapt).stdout.splitlines() if li.startswith("guard: ")]
    assert "of the images changed" in said or "collapsed" in said
    assert "--steps 1 --guard --" in report.read_text()
    assert "guard: " not in succeed(*adapt, "--no-guard").stdout
    assert "--steps 1 --no-guard --" in report.read_text()


def test_adapt_says_what_auto_chose_and_so_does_the_report(user_files):
    out, report = (user_files.folder / f"new.{ending}" for ending in ("safetensors", "html"))
    options = ("--backbone", user_files.backbone, "--images", user_files.pictures)
    adapt = ("adapt", *options, "--out", out, "--steps", 1, "--strategy", "auto")
    (said,) = [
        line for line in succeed(*adapt, "--report", report).stdout.splitlines()
        if line.startswith("auto: ")
    ]  # fmt: skip
    chosen = said.removeprefix("auto: ")
    assert chosen in ("information_maximization", "moment_matching", "start")
    assert f"chosen: {chosen}" in report.read_text(encoding="utf-8")
    assert "auto chooses by the guard" in refuse(*adapt, "--no-guard")


def predict(files, images: Path) -> Result:
    return succeed("predict", "--backbone", files.backbone, "--adapter", files.adapter, images)


def test_predict_prints_csv(user_files):
    text = predict(user_files, user_files.pictures).stdout
    assert "\r" not in text
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["path", "class", "confidence"]
    assert [row[0] for row in rows] == sorted(str(p) for p in user_files.pictures.iterdir())
    for _, label, confidence in rows:
        assert label in "0123456789"
        assert 0.1 <= float(confidence) <= 1


def test_predict_takes_one_picture(user_files):
    picture = user_files.pictures / "3.png"
    _, row = csv.reader(io.StringIO(predict(user_files, picture).stdout))
    whole = list(csv.reader(io.StringIO(predict(user_files, user_files.pictures).stdout)))
    assert row in whole


@pytest.mark.parametrize("name", ["images.npz", "IMAGES.NPZ"])
def test_predict_numbers_the_images_of_an_archive(user_files, name):
    path = user_files.folder / name
    with path.open("wb") as file:
        np.savez(file, images=np.zeros((2, 32, 32), dtype=np.uint8))
    _, *rows = csv.reader(io.StringIO(predict(user_files, path).stdout))
    assert [row[0] for row in rows] == [f"{path}[0]", f"{path}[1]"]


@pytest.mark.parametrize("at_once", [512, 2, 1])
def test_predict_names_broken_pictures_on_stderr_alone(user_files, monkeypatch, at_once):
    monkeypatch.setattr(predict_cli, "PICTURES_AT_ONCE", at_once)
    whole = predict(user_files, user_files.pictures).stdout
    for name in ("2a.png", "2b.png", "9.jpg"):
        (user_files.pictures / name).write_bytes(b"not a picture")
    result = predict(user_files, user_files.pictures)
    assert result.stdout == whole
    for name in ("2a.png", "2b.png", "9.jpg"):
        assert name in result.stderr


def test_predictions_do_not_depend_on_how_many_are_made_at_once(user_files, monkeypatch):
    whole = predict(user_files, user_files.pictures).stdout
    monkeypatch.setattr(predict_cli, "PICTURES_AT_ONCE", 4)
    assert predict(user_files, user_files.pictures).stdout == whole


def test_evaluate_says_accuracy_in_all_and_by_class(user_files):
    options = ("--backbone", user_files.backbone, "--data", user_files.data_root)
    for adapter in ((), ("--adapter", user_files.adapter)):
        total, *classes = succeed("evaluate", *options, *adapter, "--domain", "usps").stdout.split(
            "\n"
        )[:-1]
        assert total.endswith("of 20 test images")
        shares = [line.split() for line in classes]
        right = sum(float(words[2]) / 100 * int(words[-1]) for words in shares)
        assert 100 * right / 20 == pytest.approx(float(total.split()[1]), abs=0.01)


def test_evaluate_takes_a_labelled_archive(user_files):
    archive = user_files.data_root / "digits" / "usps.npz"
    options = ("--backbone", user_files.backbone, "--data", user_files.data_root, "--domain")
    assert (
        succeed("evaluate", *options, archive).stdout
        == succeed("evaluate", *options, "usps").stdout
    )


def test_export_says_what_it_wrote(user_files):
    out = user_files.folder / "new" / "site-7.onnx"
    options = ("--backbone", user_files.backbone, "--adapter", user_files.adapter)
    written, taken, given, difference = succeed("export", *options, "--out", out).stdout.split(
        "\n"
    )[:-1]
    assert written == f"wrote {out}: domain site-7, {out.stat().st_size:,} bytes"
    assert taken.endswith("pixels in [0, 1], (batch, 3, 32, 32)")
    assert given.endswith("class probabilities, (batch, 10)")
    assert 0 <= float(difference.split()[-1]) <= 1e-4
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_export_of_8_bit_integers_says_how_many_pictures_keep_their_class(user_files):
    out = user_files.folder / "site-7.onnx"
    options = ("--backbone", user_files.backbone, "--adapter", user_files.adapter, "--out", out)
    refused = refuse("export", *options, "--int8", user_files.pictures)
    assert "at least 10 images" in refused and not out.exists()
    archive = user_files.data_root / "digits" / "usps.npz"
    said = succeed("export", *options, "--int8", archive).stdout.splitlines()
    assert re.fullmatch(r"8-bit integers: \d+\.\d % of the pictures keep their class", said[-1])


@pytest.mark.parametrize(
    ("chosen", "name"), [((), "mean"), (("--domain", "meter"), "meter")], ids=["plain", "domain"]
)
def test_export_writes_a_domain_of_the_backbone(user_files, chosen, name):
    out = user_files.folder / "plain.pt2"
    options = ("--backbone", user_files.backbone, *chosen)
    assert f"domain {name}," in succeed("export", *options, "--out", out).stdout
    backbone = load_backbone(user_files.backbone)
    plain = make_start(backbone, "mean", "mean", np.full((2, 32, 32), 9, dtype=np.uint8))
    plain.use_statistics(0.0)
    domain = plain.target if name == "mean" else backbone.network.domains[name]
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = probabilities(backbone.network(pixels, domain))
    run = torch.export.load(out).module()
    torch.testing.assert_close(run(pixels), expected, rtol=0, atol=1e-4)


def test_inspect_shows_what_a_backbone_and_an_adapter_hold(user_files):
    shown = succeed("inspect", user_files.backbone).stdout
    assert "backbone" in shown and "domains: mnist, meter" in shown and "num_layers=2" in shown
    assert shown.count(", a line a layer") == 2
    shown = succeed("inspect", user_files.adapter).stdout
    assert "domain: site-7" in shown
    rows = [line for line in shown.splitlines() if line.startswith("  ")]
    assert len(rows) == 2  # a line a layer
    weights = [row.split("|")[0].split() for row in rows]
    assert all(sum(map(float, row)) == pytest.approx(1, abs=0.011) for row in weights)


def test_bench_digits_runs_from_data_to_tables_and_plots(bench_digits, tmp_path):
    strategies = ("--strategy", "source_only", "--strategy", "information_maximization")
    arguments = bench_digits("--network", "compositional", *strategies)
    said = succeed(*arguments).stdout
    assert "-> usps; data: files" in said
    assert "note: svhn is missing" in said
    results = tmp_path / "results"
    rows = read_rows(results / "results.jsonl")
    assert len(rows) == 2 + 4  # strategies and oracles
    assert {row.target for row in rows} == {"usps"}
    endings = sorted(path.name.rsplit("-", 1)[-1] for path in results.iterdir())
    assert endings == [
        "accuracy.png", "best.png", "changed.png", "confusion.png", "embeddings.png",
        "mixtures.png", "results.jsonl", "table.csv", "table.md", "table.tex",
    ]  # fmt: skip
    assert not list(tmp_path.joinpath("runs").rglob(STATE))

    again = succeed(*arguments)
    assert again.stderr.count("finished earlier") == 1
    assert read_rows(results / "results.jsonl") == rows

    results = results.rename(tmp_path / "digits")  # README's tables go by the folder's name
    readme = tmp_path / "README.md"
    tables = ("digits", "digits-best", "digits-differences")
    readme.write_text("".join(f"<!-- table:{t} -->\n<!-- /table:{t} -->\n" for t in tables))
    assert "no rows of profile 'full'" in refuse("report", "--results", results, "--readme", readme)
    lines = [json.dumps(vars(row) | {"profile": "full"}) for row in rows]
    (results / "results.jsonl").write_text("\n".join(lines) + "\n")
    succeed("report", "--results", results, "--readme", readme)
    assert "Information maximization" in readme.read_text(encoding="utf-8")
    readme.write_text("no markers")
    assert "table:digits" in refuse("report", "--results", results, "--readme", readme)
    assert readme.read_text() == "no markers"
    assert "missing.md" in refuse(
        "report", "--results", results, "--readme", tmp_path / "missing.md"
    )
