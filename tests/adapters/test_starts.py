"""Starts of a new domain: what they copy, their statistics, and each predicted once."""

import itertools

import pytest
import torch
from torch import Tensor

from adapters.parts import unlock
from da_compose import Backbone, Domain, probabilities
from da_compose.evidence import another_view
from da_compose.images import to_pixels
from da_compose.inference import embed, predict_logits
from da_compose.model.domain import POOLED
from da_compose.model.mixture import MixtureWeights
from da_compose.starts import (
    MEAN,
    PRIOR_IMAGES,
    Tried,
    make_start,
    plain_start_name,
    starts_to_compare,
)
from da_compose.statistics import estimate_statistics


def xi_of(domain: Domain) -> Tensor:
    assert isinstance(domain.mixture, MixtureWeights)
    return domain.mixture.xi


def test_a_named_start_copies_the_domain(backbone: Backbone, make_pixels):
    start = make_start(backbone, "middle", "site-7", make_pixels(9))
    source = backbone.network.domains["middle"]
    start.use_statistics(0.0)
    assert torch.equal(xi_of(start.target), xi_of(source))
    assert torch.equal(start.target.mean, source.mean)
    assert torch.equal(start.target.var, source.var)
    assert (start.target.name, start.name) == ("site-7", "middle")


def test_the_copy_shares_no_memory_with_the_domain(backbone: Backbone, make_pixels):
    target = make_start(backbone, "middle", "site-7", make_pixels(9)).target
    kept = backbone.network.domains["middle"].mean.clone()
    with torch.no_grad():
        xi_of(target).add_(1)
    target.mean.add_(1)
    assert torch.equal(backbone.network.domains["middle"].mean, kept)
    assert not torch.equal(xi_of(backbone.network.domains["middle"]), xi_of(target))


def test_the_mean_start_averages_sources_in_any_order(backbone: Backbone, make_pixels):
    images = make_pixels(9)
    expected = sum(xi_of(domain).double() for domain in backbone.network.domains) / 3
    starts = []
    for order in itertools.permutations(backbone.knowledge):
        reordered = Backbone(
            backbone.network, backbone.class_names, {n: backbone.knowledge[n] for n in order}
        )
        start = make_start(reordered, MEAN, "target", images)
        start.use_statistics(0.0)
        starts.append(start.target)
        torch.testing.assert_close(xi_of(start.target).double(), expected, check_dtype=False)
    for start in starts[1:]:
        torch.testing.assert_close(start.mean, starts[0].mean)
        torch.testing.assert_close(start.var, starts[0].var)


def test_mean_statistics_are_those_of_an_equal_mixture(backbone: Backbone, make_pixels):
    start = make_start(backbone, MEAN, "target", make_pixels(9))
    means = torch.stack([domain.mean for domain in backbone.network.domains]).double()
    variances = torch.stack([domain.var for domain in backbone.network.domains]).double()
    second = (variances + means**2).mean(0)  # raw moment of the mixture
    mean, var = start.source_statistics
    torch.testing.assert_close(mean.double(), means.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(var.double(), second - means.mean(0) ** 2, rtol=1e-5, atol=1e-6)


def test_only_known_sources_enter_the_mean(make_backbone, make_pixels):
    backbone = make_backbone()
    backbone.network.domains.add(backbone.network.new_domain("stranger"))
    expected = torch.stack([xi_of(backbone.network.domains[n]) for n in backbone.knowledge]).mean(0)
    found = make_start(backbone, MEAN, "target", make_pixels(5)).target
    torch.testing.assert_close(xi_of(found), expected)


@pytest.mark.parametrize("count", [1, 16, 40])
def test_the_targets_own_statistics_are_shrunk_toward_the_sources(
    backbone: Backbone, make_pixels, count: int
):
    images = make_pixels(count)
    start = make_start(backbone, "left", "target", images)
    start.use_statistics(0.0)
    own = estimate_statistics(backbone.network, start.target, [to_pixels(images)])
    share = count / (count + PRIOR_IMAGES)
    start.use_statistics(1.0)
    for found, source, target in zip(
        (start.target.mean, start.target.var), start.source_statistics, own, strict=True
    ):
        torch.testing.assert_close(found, (1 - share) * source + share * target)


def test_statistics_are_positive_and_finite_with_one_image(backbone: Backbone, make_pixels):
    start = make_start(backbone, MEAN, "target", make_pixels(1, colour=False))
    start.use_statistics(1.0)
    assert start.target.mean.isfinite().all() and (start.target.var > 0).all()


def test_an_unshared_network_starts_from_statistics_alone(unshared: Backbone, make_pixels):
    start = make_start(unshared, "right", "target", make_pixels(6))
    start.use_statistics(0.0)
    assert list(start.target.parameters()) == []
    assert torch.equal(start.target.mean, unshared.network.domains["right"].mean)


def test_the_plain_start_is_the_pooled_domain_where_there_is_one(make_backbone):
    backbone = make_backbone()
    assert plain_start_name(backbone) == MEAN
    backbone.network.domains.add(backbone.network.new_domain(POOLED))
    assert plain_start_name(backbone) == POOLED


def differently(backbone: Backbone, name: str, *parts: str) -> Domain:
    """One more domain of a backbone, whose own parts are unlike the network's."""
    domain = backbone.network.new_domain(name)
    generator = torch.Generator().manual_seed(len(name))
    for parameter in unlock(backbone.network, domain, *parts):
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    domain.requires_grad_(False)
    backbone.network.domains.add(domain)
    return domain


@pytest.mark.parametrize("part", ["mixture_weights", "input_adapter", "batch_norm", "heads"])
def test_a_start_of_one_domain_keeps_that_domains_own_parts(make_backbone, make_pixels, part: str):
    backbone, images = make_backbone(), make_pixels(9)
    known = differently(backbone, "site-1", part)
    start = make_start(backbone, "site-1", "site-2", images)
    start.use_statistics(0.0)
    assert start.target.own_parts == known.own_parts
    one, two = start.target.state_dict(), known.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert (start.target.name, known.name) == ("site-2", "site-1")
    same = (predict_logits(backbone.network, domain, images) for domain in (start.target, known))
    assert torch.equal(*same)
    own = {value.data_ptr() for value in two.values()}
    assert not any(value.data_ptr() in own for value in one.values())
    assert not any(parameter.requires_grad for parameter in start.target.parameters())


def test_the_own_statistics_of_a_start_are_under_its_own_parts(make_backbone, make_pixels):
    backbone, images = make_backbone(), make_pixels(40)
    known = differently(backbone, "site-1", "input_adapter")
    start = make_start(backbone, "site-1", "target", images, prior_images=0)
    own = estimate_statistics(backbone.network, known, [to_pixels(images)])
    torch.testing.assert_close(start.target_statistics, own)


@pytest.mark.parametrize("owners", [("left", "right"), ("left", "middle", "right")])
def test_the_mean_has_gamma_and_beta_where_all_sources_have(make_backbone, make_pixels, owners):
    backbone = make_backbone()
    known = [backbone.network.domains[name] for name in backbone.knowledge]
    for number, name in enumerate(owners):
        domain = backbone.network.domains[name]
        backbone.network.own_batch_norm(domain)
        for value in (domain.gamma, domain.beta):
            assert value is not None
            value.detach().add_(number)
    target = make_start(backbone, MEAN, "target", make_pixels(5)).target
    assert (target.gamma is not None) is (target.beta is not None) is (len(owners) == 3)
    if len(owners) == 3:
        for part in ("gamma", "beta"):
            expected = torch.stack([domain.get_parameter(part) for domain in known]).mean(dim=0)
            torch.testing.assert_close(target.get_parameter(part), expected)


def test_the_targets_own_statistics_are_estimated_when_they_are_asked_for(
    backbone: Backbone, make_pixels, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    whole = estimate_statistics

    def counted(*given):
        asked.append(1)
        return whole(*given)

    monkeypatch.setattr("da_compose.starts.estimate_statistics", counted)
    start = make_start(backbone, MEAN, "target", make_pixels(9))
    start.use_statistics(0.0)
    assert not asked
    start.use_statistics(0.5)
    start.use_statistics(1.0)
    assert len(asked) == 1


def test_the_plain_start_and_the_mean_are_compared(make_backbone):
    backbone = make_backbone()
    assert starts_to_compare(backbone) == [(MEAN, 0.0), (MEAN, 0.5), (MEAN, 1.0)]
    backbone.network.domains.add(backbone.network.new_domain(POOLED))
    found = starts_to_compare(backbone, (0.0, 1.0))
    assert found == [(POOLED, 0.0), (POOLED, 1.0), (MEAN, 0.0), (MEAN, 1.0)]


def test_a_start_is_made_once_and_each_blend_predicts_once(backbone, make_pixels, monkeypatch):
    images, seen = make_pixels(60), []

    def counted(network, domain, images):
        seen.append(len(images))
        return embed(network, domain, images)

    monkeypatch.setattr("da_compose.starts.embed", counted)
    tried = Tried(backbone, "target", images, 24)
    one, two = tried.logits(MEAN, 0.0), tried.logits(MEAN, 1.0)
    assert not torch.equal(one, two) and torch.equal(tried.logits(MEAN, 0.0), one)
    assert tried.start(MEAN, 0.5) is tried.start(MEAN, 1.0)
    predicted, viewed = tried.views(MEAN, 0.0)
    torch.testing.assert_close(predicted, probabilities(one)[:24])
    expected = predict_logits(
        backbone.network, tried.start(MEAN, 0.0).target, another_view(images[:24])
    )
    assert torch.equal(viewed, probabilities(expected))
    tried.views(MEAN, 0.0)
    assert seen == [60, 60, 24, 24]
