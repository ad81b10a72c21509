"""How `da-compose inspect` shows mixtures: in figures, and drawn."""

import pytest
import torch
from torch import Tensor

from benchmarks.cli.inspect import description
from da_compose import Backbone, CompositionalNetwork, load_backbone, save_adapter
from da_compose.model.signature import signature_xi
from tests.benchmarks.calls import succeed
from tests.tiny_modules import CLASSES, tiny_pretrained


def shown_adapter(backbone, xi: Tensor, path) -> list[str]:
    """What inspect prints of a domain's mixture: its figures, then a line a layer."""
    network: CompositionalNetwork = backbone.network
    save_adapter(path, backbone, network.new_domain("new", xi), {})
    lines = succeed("inspect", path).stdout.splitlines()
    return lines[lines.index("mixture weights of new, a line a layer") + 1 :]


def test_a_one_hot_mixture_is_drawn_as_its_signature(backbone, tmp_path):
    assert shown_adapter(backbone, signature_xi((1, 0), 2), tmp_path / "new.safetensors") == [
        "signature 2,1; runs 2; mean sharpness 1.00",
        "  0.00 1.00  | █|",
        "  1.00 0.00  |█ |",
    ]


def test_a_soft_mixture_is_drawn_in_shades(backbone, tmp_path):
    weights = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    assert shown_adapter(backbone, weights.log(), tmp_path / "new.safetensors") == [
        "signature 1,1; runs 1; mean sharpness 0.62",
        "  0.75 0.25  |▓░|",
        "  0.50 0.50  |▒▒|",
    ]


def test_a_mixture_that_diverged_is_not_written(backbone, tmp_path):
    xi = torch.tensor([[torch.nan, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"mixture.xi is not finite; the training diverged"):
        shown_adapter(backbone, xi, tmp_path / "new.safetensors")
    assert not [*tmp_path.iterdir()]


def test_every_domain_of_a_backbone_is_drawn(user_files):
    lines = list(description(user_files.backbone))
    figures = [line for line in lines if line.startswith("signature ")]
    drawn = [line for line in lines if line.startswith("  ")]
    domains = load_backbone(user_files.backbone).network.domains
    assert len(figures) == len(domains) == 2
    assert len(drawn) == 2 * len(domains)
    titles = [line for line in lines if line.startswith("mixture weights of ")]
    assert titles == [f"mixture weights of {name}, a line a layer" for name in domains.names]
    for line, domain in zip(figures, domains, strict=True):
        mean = float(domain.mixture().max(dim=1).values.mean())
        assert float(line.rpartition(" ")[2]) == pytest.approx(mean, abs=0.005)


def test_the_fixed_signature_of_a_backbone_is_shown(unshared_backbone, backbone, tmp_path):
    for name, shown, held in (("unshared", unshared_backbone, True), ("soft", backbone, False)):
        path = tmp_path / f"{name}.safetensors"
        shown.save(path)
        assert ("fixed signature 1,2" in description(path)) == held


def test_coefficients_are_shown_as_they_are_not_as_weights(tmp_path):
    network = tiny_pretrained("conv", 2, ())
    backbone = Backbone(network, tuple("abcdefg"[:CLASSES]), {})
    domain = network.new_domain("site")
    with torch.no_grad():
        domain.mixture.get_parameter("xi").fill_(-1.5)
    save_adapter(tmp_path / "site.safetensors", backbone, domain, {})
    shown = description(tmp_path / "site.safetensors")
    assert "coefficients of site, how far along each direction, a line a layer" in shown
    assert shown[-1] == "   -1.50  -1.50"
    assert not any("signature" in line for line in shown)
