"""`scale/...`: what it costs to hold 1 to 10,000 domains on one backbone."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from benchmarks.speed.compare import Comparison, SpeedRow, alternate
from benchmarks.speed.prediction import add_domains, switch_time
from benchmarks.speed.setting import Setting
from da_compose import Network, save_adapter
from da_compose.model.mixture import MixtureWeights

COUNTS = (1, 10, 100, 1_000, 10_000)
LOOK_UPS = 1_000
ADAPTER_KB, XI_KB = 64, 1  # goals


@torch.no_grad()
def compare_scale(setting: Setting) -> Iterator[SpeedRow]:
    """Files of one domain; then memory, look-up and switch as the number of domains grows."""
    backbone = setting.backbone("compositional")
    network = backbone.network
    domain = next(iter(network.domains))
    assert isinstance(domain.mixture, MixtureWeights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        save_adapter(path, backbone, domain, {})
        size = path.stat().st_size / 1024
    yield Comparison(
        name="scale/adapter file", against=f"a goal: {ADAPTER_KB} KB with statistics", target=1.0
    ).of_values(size, ADAPTER_KB, unit="KB")
    size = len(save({"xi": domain.mixture.xi.detach()})) / 1024
    yield Comparison(
        name="scale/xi alone", against=f"a goal: {XI_KB} KB as safetensors", target=1.0
    ).of_values(size, XI_KB, unit="KB")

    ordinary = sum(4 * p.numel() for p in setting.backbone("unshared").network.shared_parameters())
    yield from many_domains(network, ordinary, "scale", COUNTS)


def many_domains(
    network: Network, ordinary: int, suite: str, counts: Sequence[int]
) -> Iterator[SpeedRow]:
    """Memory, look-up and switch as domains are added; ordinary: bytes of a network a domain."""
    shared = sum(4 * p.numel() for p in network.shared_parameters())
    first: tuple[float, float] | None = None
    for count in counts:
        add_domains(network, count - len(network.domains))  # none where there are enough
        private = [
            t for d in list(network.domains)[:count] for t in (*d.parameters(), *d.buffers())
        ]
        added = sum(4 * tensor.numel() for tensor in private)
        yield Comparison(
            name=f"{suite}/memory of {count:,} domains", against="an ordinary network a domain"
        ).of_values((shared + added) / 2**20, count * ordinary / 2**20, unit="MB")
        times = look_up_time(network), switch_time(network, list(network.domains)[-1])
        first = first or times
        for what, now, then in zip(("look-up", "switch"), times, first, strict=True):
            yield Comparison(
                name=f"{suite}/{what} among {count:,} domains", against=f"among {counts[0]}"
            ).of_values(now, then, unit="ms")


def look_up_time(network: Network) -> float:
    """Milliseconds to find one domain by name: the one that was added last."""
    table, name = network.domains, network.domains.names[-1]

    def look_up() -> None:
        for _ in range(LOOK_UPS):
            _ = table[name]

    found, _ = alternate(look_up, lambda: None, repeats=9)
    return 1000 * found / LOOK_UPS
