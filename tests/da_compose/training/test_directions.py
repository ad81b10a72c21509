"""Templates span what the fits to mock domains moved, and are learned again where interrupted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from da_compose import Backbone, progress
from da_compose.images import ImageSet
from da_compose.knowledge import collect_knowledge
from da_compose.model.pretrained import PretrainedNetwork
from da_compose.statistics import estimate_statistics
from da_compose.training import directions
from da_compose.training.directions import (
    DirectionsConfig,
    fit_mock,
    leading_directions,
    learn_templates,
)
from tests.tiny_modules import CLASSES, KINDS, SIZE, tiny_pretrained

SHORT = DirectionsConfig(templates=2, mock_domains=3, pictures=12, steps=4, batch_size=6)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def sources(make_images) -> dict[str, ImageSet]:
    return {name: make_images(24, seed, SIZE, colour=True) for seed, name in enumerate("ab")}


def untaught(kind: str, sources: dict[str, ImageSet]) -> Backbone:
    network = tiny_pretrained(kind, num_templates=0)
    for name in sources:
        network.domains.add(network.new_domain(name))
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Backbone(network, names, collect_knowledge(network, sources))


def templates_of(backbone: Backbone) -> torch.Tensor:
    assert isinstance(backbone.network, PretrainedNetwork)
    return backbone.network.templates.directions


@every_kind
def test_templates_are_the_leading_directions_of_the_displacements(kind: str, sources):
    backbone = untaught(kind, sources)
    before = backbone.fingerprint
    made = learn_templates(backbone, sources, SHORT)
    assert backbone.fingerprint == before
    network = made.network
    assert isinstance(network, PretrainedNetwork)
    assert network.config.num_templates == 2
    assert network.get_buffer("first_xi").shape == (network.config.num_layers, 2)
    mocks = [fit_mock(network, sources, number, SHORT) for number in range(3)]
    moved = torch.stack([mock.displacement for mock in mocks if mock.displacement is not None])
    assert moved.shape[0] == 3
    expected = leading_directions(moved, network.templates.layers, 2)
    torch.testing.assert_close(templates_of(made), expected)
    images = torch.rand(3, 3, SIZE, SIZE)
    with torch.no_grad():  # at xi = 0 nothing has changed
        for name in sources:
            found = network(images, network.domains[name])
            assert torch.equal(found, backbone.network(images, backbone.network.domains[name]))


def test_a_fit_gets_more_right(sources):
    network = tiny_pretrained(num_templates=0)
    config = DirectionsConfig(
        pictures=24, steps=60, batch_size=24, learning_rate=0.03, styles=(1, 1)
    )
    mocks = [fit_mock(network, sources, number, config) for number in range(4)]
    assert sum(mock.after for mock in mocks) > sum(mock.before for mock in mocks) + 0.4


def test_as_many_directions_as_displacements_span_them():
    generator = torch.Generator().manual_seed(0)
    moved, layers = torch.randn(3, 20, generator=generator), torch.tensor([0] * 8 + [2] * 12)
    found = leading_directions(moved, layers, 3)
    for layer in (0, 2):
        part, span = moved[:, layers == layer], found[:, layers == layer]
        weights = torch.linalg.lstsq(span.T, part.T).solution
        torch.testing.assert_close(span.T @ weights, part.T, rtol=1e-4, atol=1e-5)
        # Orthogonal; together as long as the displacements are by root mean square
        gram = span @ span.T
        torch.testing.assert_close(gram, gram.diag().diag(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gram.trace(), part.square().sum() / 3)
        assert (gram.diag().diff() <= 1e-6).all()
    assert torch.equal(leading_directions(moved, layers, 2), found[:2])


def test_one_displacement_is_its_own_direction():
    moved, layers = torch.tensor([[0.0, -3.0, 2.0]]), torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(leading_directions(moved, layers, 1), -moved)


def test_an_interrupted_call_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch, sources):
    backbone = untaught("conv", sources)
    whole = templates_of(learn_templates(backbone, sources, SHORT))
    taken = []

    def two_at_most(network, data, number, config):
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(number)
        return fit_mock(network, data, number, config)

    monkeypatch.setattr(directions, "fit_mock", two_at_most)
    with pytest.raises(KeyboardInterrupt):
        learn_templates(backbone, sources, SHORT, tmp_path)
    taken.clear()
    resumed = learn_templates(backbone, sources, SHORT, tmp_path)
    assert taken == [2]
    assert torch.equal(templates_of(resumed), whole)
    other = untaught("conv", sources)
    other.network.domains["a"].mean.add_(1)  # no part of the shared weights
    assert torch.equal(templates_of(learn_templates(other, sources, SHORT, tmp_path)), whole)
    fewer = {"a": sources["a"]}
    with pytest.raises(ValueError, match="was learned with another sources; delete it, or name"):
        learn_templates(backbone, fewer, SHORT, tmp_path)


def test_too_easy_and_too_hard_mock_domains_are_left_out(sources, monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    config = DirectionsConfig(
        templates=1, mock_domains=1, pictures=12, steps=1, right=(2.0, 2.0), most_left_out=3
    )
    with progress.show_progress():
        learn_templates(untaught("conv", sources), sources, config)
    said = capsys.readouterr().err
    assert "left out" in said and "done in" in said.splitlines()[-1]


def test_what_has_no_directions_is_refused(make_network, sources):
    with pytest.raises(ValueError, match="3 mock domains have no 4 directions"):
        DirectionsConfig(mock_domains=3)
    mixed = Backbone(make_network(), ("a", "b", "c"), {})
    with pytest.raises(ValueError, match="templates are learned of a pretrained network"):
        learn_templates(mixed, sources)
    assert np.isfinite(SHORT.learning_rate)


def test_mock_domains_are_normalized_by_half_of_their_own_statistics(monkeypatch, sources):
    network, seen = tiny_pretrained(num_templates=0), []

    def watching(net, domain, displacement, pixels, labels):
        seen.append((domain.mean.clone(), pixels))
        return 0.5

    monkeypatch.setattr(directions, "_share_right", watching)
    for own_share in (0.0, 0.5, 1.0):
        fit_mock(network, sources, 0, replace(SHORT, own_share=own_share))
    (none, _), _, (half, _), _, (whole, pixels), _ = seen
    new = network.new_domain("new")
    torch.testing.assert_close(none, new.mean)
    torch.testing.assert_close(whole, estimate_statistics(network, new, [pixels])[0])
    torch.testing.assert_close(half, (none + whole) / 2)
