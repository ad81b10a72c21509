"""Forged files, their checksum made anew: refused in one line, before anything is allocated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from da_compose import Backbone, load_adapter, load_backbone, save_adapter
from da_compose.knowledge import collect_knowledge
from da_compose.storage import files, schema
from da_compose.storage.backbone import saved_fingerprint
from da_compose.storage.files import kind_of, load_tensors, save_tensors

NAMES = ("zero", "one", "two")
VAST = 2**24


@pytest.fixture
def backbone(make_network, make_images) -> Backbone:
    network = make_network(("b", "a"))
    sources = {name: make_images(9) for name in ("b", "a")}
    return Backbone(network, NAMES, collect_knowledge(network, sources, per_class=2))


def forge(path: Path, kind: str, change: Callable[[dict[str, Tensor], dict[str, Any]], None]):
    """Change what a file holds, and sum it anew."""
    tensors, metadata = load_tensors(path, kind)
    change(tensors, metadata)
    save_tensors(path, tensors, metadata)


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ValueError) as refused:
        call(*arguments)
    said = str(refused.value)
    assert "\n" not in said and len(said) < 500
    return said


METADATA: list[tuple[str, Any, str]] = [
    ("config.num_templates", VAST, "of another shape"),
    ("config.num_layers", VAST, "of another shape"),
    ("config.num_layers", VAST + 1, "num_layers is 16777217, expected"),
    ("config.image_size", 8192, "expected 4096 at most"),
    ("config.embedding", 5.0, "embedding is 5.0, expected"),
    ("config.embedding", 0, "embedding must be at least 1"),
    ("config.surplus", 1, "surplus is not known"),
    ("config", 1.5, "config is 1.5, expected a mapping"),
    ("notes", 1.5, "notes is 1.5, expected a mapping"),
    ("class_names", [0, 1, 2], "expected two or more different names"),
    ("class_names", ["a", "a", "b"], "expected two or more different names"),
    ("class_names", ["a", "b", "\x1b[31mred"], "expected two or more different names"),
    ("class_names", ["a", "b"], "2 class names for a network with 3"),
    ("domains", ["b", "b"], "expected different names of domains"),
    ("domains", ["b"], "unexpected"),
    ("num_images.b", -1, "expected a mapping to a whole number"),
    ("num_images.elsewhere", 3, "no domains: elsewhere"),
    ("own_parts.b", {"heads": True}, "expected a mapping to"),
    ("fingerprint", 7, "expected 16 hexadecimal digits"),
    ("network", "other", "expected 'pretrained'"),
    ("surplus", 1, "surplus is not known"),
]


@pytest.mark.parametrize(("place", "value", "said"), METADATA)
def test_metadata_that_do_not_fit_are_refused(
    backbone, tmp_path: Path, place: str, value: Any, said: str
):
    def change(_: object, metadata: dict[str, Any]) -> None:
        *outer, last = place.split(".")
        for name in outer:
            metadata = metadata[name]
        metadata[last] = value

    backbone.save(tmp_path / "file")
    forge(tmp_path / "file", "backbone", change)
    message = refusal(load_backbone, tmp_path / "file")
    assert said in message and str(tmp_path / "file") in message


def test_a_forged_adapter_is_refused(backbone, tmp_path: Path):
    path, domain = tmp_path / "file", backbone.network.new_domain("target")
    for name, value, said in (
        ("domain", "two words", "a domain's name"),
        ("own_classes", ["a", "b"], "heads are of 0 classes, 2 are named"),
        ("notes", {"learned_parameters": "x"}, "expected a whole number"),
        ("heads", 1, "true or false"),
        ("heads", True, "missing: heads.0.weight"),
        ("format", 1.5, "format is 1.5"),
    ):
        save_adapter(path, backbone, domain, {})
        new = {name: value}
        forge(path, "adapter", lambda _, metadata, new=new: metadata.update(new))
        assert said in refusal(load_adapter, path, backbone)
    save_adapter(path, backbone, domain, {})
    forge(path, "adapter", lambda _, metadata: metadata.update(class_names=["x", "y", "z"]))
    with pytest.warns(UserWarning, match="names its classes x, y, z, its backbone zero, one, two"):
        load_adapter(path, backbone)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("network.templates.expand", lambda t: t.half(), "of another type"),
        ("network.templates.expand", lambda t: t[:, :1], "of another shape"),
        ("network.heads.0.weight", lambda t: t.long(), "of another type|not of floats"),
        ("network.domains._domains.0.mixture.xi", lambda t: t[None], "of another shape"),
        ("knowledge.b.block_features", lambda t: t.float(), "of another type"),
        ("knowledge.b.block_features", lambda t: t[:0], "of another shape"),
        ("knowledge.b.labels", lambda t: t + 1, "not classes from 0 to 2"),
        ("knowledge.b.second", lambda t: -t - 1, "below the square"),
        ("first_xi", None, "missing: first_xi"),
        ("surplus", lambda t: torch.zeros(2), "unexpected: surplus"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    backbone, tmp_path: Path, name: str, make: Any, said: str
):
    def change(tensors: dict[str, Tensor], _: object) -> None:
        old = tensors.pop(name, torch.empty(0))
        if make is not None:
            tensors[name] = make(old)

    backbone.save(tmp_path / "file")
    forge(tmp_path / "file", "backbone", change)
    assert any(one in refusal(load_backbone, tmp_path / "file") for one in said.split("|"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1.0])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(
    backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
):
    domain = backbone.network.new_domain("target")
    save_adapter(tmp_path / "file", backbone, domain, {})
    whole = (tmp_path / "file").read_bytes()
    domain.var[1] = value
    said = refusal(save_adapter, tmp_path / "file", backbone, domain, {})
    assert "not written: var is" in said and (tmp_path / "file").read_bytes() == whole
    with monkeypatch.context() as forging:
        forging.setattr(files, "check_values", lambda _: None)
        save_adapter(tmp_path / "file", backbone, domain, {})
    assert "var is " in refusal(load_adapter, tmp_path / "file", backbone)


@pytest.mark.parametrize("depth", [40, 100_000])
def test_metadata_in_metadata_are_refused(tmp_path: Path, depth: int):
    from safetensors.torch import save_file

    text = '{"kind": "backbone", "notes": {"x": ' + "[" * depth + "]" * depth + "}}"
    save_file({"a": torch.zeros(1)}, tmp_path / "file", {"da_compose": text})
    for call in (load_backbone, saved_fingerprint):
        assert "nested too deeply" in refusal(call, tmp_path / "file")
    assert kind_of(tmp_path / "file") is None


def test_half_and_double_precision_are_loaded_as_they_were_saved(backbone, tmp_path: Path):
    pixels = torch.rand(2, 3, 8, 8)
    for precision in (torch.float64, torch.bfloat16):
        backbone.network.to(precision)
        backbone.save(tmp_path / "file")
        loaded = load_backbone(tmp_path / "file")
        assert loaded.network.dtype == precision
        assert loaded.fingerprint == backbone.fingerprint
        domain = backbone.network.new_domain("target")
        save_adapter(tmp_path / "adapter", loaded, domain, {})
        same, _ = load_adapter(tmp_path / "adapter", loaded)
        assert loaded.network(pixels, same).equal(backbone.network(pixels, domain))


def test_class_names_that_no_file_could_hold_are_refused_before_any_work(make_images):
    from da_compose import Task
    from da_compose.sources import read_sources

    data = make_images(6)
    wrong: Any = (("a", "b", "b"), ("a", "b", 3), ("a", "b", "c\n"))
    for names in wrong:
        with pytest.raises(ValueError, match="class names must be different texts"):
            Task(name="t", train=data, class_names=names)
        with pytest.raises(ValueError, match="class names must be different texts"):
            read_sources({"x": (data.images, data.labels)}, 8, names)
    with pytest.raises(ValueError, match="task name 'a b': use one word"):
        Task(name="a b", train=data, class_names=NAMES)


def test_values_are_told_by_their_type():
    assert schema.misfit({"a": True}, {"a": schema.whole()}) is not None
    assert schema.misfit({}, {"a": schema.optional(schema.whole())}) is None
    assert json.loads(json.dumps(schema.short("x" * 500))) == "x" * 77 + "..."
    assert schema.short(np.int64(3)) == "np.int64(3)"
