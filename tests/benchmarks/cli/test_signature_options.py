"""Signatures and penalties on mixtures, as options of the commands that train a backbone."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.cli.mixture_options import START_SHARE, MixtureOptions
from da_compose import load_backbone
from da_compose.model.signature import make_signature, sharpness, signature_of
from da_compose.training.regularizers import min_entropy, template_attraction
from da_compose.training.run import LOG
from tests.benchmarks.calls import refuse, succeed
from tests.benchmarks.conftest import TINY

pytestmark = pytest.mark.filterwarnings("always")  # as the commands show them, not as errors
TRAINING = {
    "pretrain": ("--recipe", "paper", "--source", "mnist"),
    "train-tasks": ("--task", "mnist"),
}
every_command = pytest.mark.parametrize("command", TRAINING)


def training(command: str, out: Path, root: Path, *more: object) -> tuple[object, ...]:
    return (command, out, *TRAINING[command], "--steps", 1, "--data", root, *more)


@every_command
@pytest.mark.parametrize(("text", "shown"), [("2,1", "2,1"), ("cyclic", "1,2")])
def test_a_fixed_signature_is_the_networks(command, text, shown, data_root, tmp_path):
    out = tmp_path / "backbone.safetensors"
    succeed(*training(command, out, data_root, "--signature", text))
    written = load_backbone(out)
    assert not [*written.network.domains["mnist"].mixture.parameters()]
    assert written.notes["signature"] == text
    assert f"fixed signature {shown}" in succeed("inspect", out).stdout.splitlines()


def test_a_random_signature_goes_by_the_seed():
    config = MixtureOptions(signature="random").network_config(TINY, seed=5)
    assert config.signature == make_signature("random", 2, 2, seed=5)


@every_command
def test_mixtures_start_near_a_signature(command, data_root, tmp_path):
    out = tmp_path / "backbone.safetensors"
    succeed(*training(command, out, data_root, "--start-signature", "2,1"))
    written = load_backbone(out)
    first = written.network.get_buffer("first_xi").softmax(dim=1)
    assert signature_of(first) == (1, 0)
    torch.testing.assert_close(sharpness(first), torch.full((2,), START_SHARE))
    trained = written.network.domains["mnist"].mixture()
    assert 0 < (trained - first).abs().max() < 0.1  # a step of training away
    assert written.notes["start_signature"] == "2,1"


def test_a_start_leaves_the_other_weights_as_they_are():
    plain = MixtureOptions().network(TINY, seed=3).state_dict()
    started = MixtureOptions(start_signature="1,1").network(TINY, seed=3).state_dict()
    assert all(value.equal(started[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    ("command", "penalty"), [("pretrain", template_attraction), ("train-tasks", min_entropy)]
)
def test_penalties_add_to_the_loss_by_their_weight(command, penalty, data_root, tmp_path):
    losses = []
    for weight in (0, 2):
        out = tmp_path / str(weight) / "backbone.safetensors"
        option = f"--{penalty.__name__.replace('_', '-')}"
        succeed(*training(command, out, data_root, option, weight))
        (line,) = (out.parent / LOG).read_text().splitlines()
        losses.append(json.loads(line)["loss"])
    network = MixtureOptions().network(TINY, seed=0)
    mixture = network.get_buffer("first_xi").softmax(dim=1)
    arguments = (mixture,) if penalty is min_entropy else (mixture, network.templates)
    assert losses[1] - losses[0] == pytest.approx(2 * float(penalty(*arguments)), abs=1e-5)


def test_without_options_nothing_is_penalized_or_noted():
    assert MixtureOptions().regularization is None and MixtureOptions().given == {}


@every_command
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--signature", "1,2,2"), "names 3 templates, expected one for each of the 2 layers"),
        (("--signature", "1,3"), "names templates [3], there are 1..2"),
        (("--signature", "spiral"), "neither one of sequential, cyclic, random, progressive"),
        (("--signature", ""), "neither one of"),
        (("--start-signature", "1,3"), "names templates [3]"),
        (("--signature", "1,2", "--start-signature", "1,2"), "leave out either it or --start-sig"),
        (("--signature", "1,2", "--min-entropy", "1"), "leave out either it or --min-entropy"),
        (("--min-entropy", "-1"), "min_entropy must be a weight of at least 0, got -1.0"),
        (("--template-attraction", "nan"), "template_attraction must be a weight"),
        (("--min-entropy", "much"), "--min-entropy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_refused_before_data_is_read(command, options, expected, tmp_path):
    error = refuse(*training(command, tmp_path / "out", tmp_path / "nowhere", *options))
    assert expected in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [("--signature", "1,2"), ("--start-signature", "1,2"), ("--min-entropy", "1")]
)
def test_an_unshared_network_takes_none_of_them(options, tmp_path):
    arguments = training("pretrain", tmp_path / "out", tmp_path, "--network", "unshared")
    error = refuse(*arguments, *options)
    assert f"a template of its own in each layer, got {options[0]}; leave it out" in error
