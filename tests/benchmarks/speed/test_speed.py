from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from adapters.strategies.losses import moment_distance, moments
from benchmarks.harness.rows import append_line
from benchmarks.speed import peers, pictures
from benchmarks.speed.benchmark import SUITES, bench_speed, markdown, read_speed_rows, write_table
from benchmarks.speed.compare import Comparison, SpeedRow, alternate
from benchmarks.speed.growth import ADAPT, MEMORY, READ, exponent, growth_of, plot_growth
from benchmarks.speed.pictures import Pictures, compare_on
from benchmarks.speed.plain import PlainLoop
from da_compose import CompositionalNetwork, NetworkConfig

TINY = Pictures(name="timm:lcnet_035", size=32, count=8, batch=2, steps=1, repeats=1)


def row(name: str = "step/a", ours: float = 2.0, other: float = 5.0, unit: str = "ms") -> SpeedRow:
    return Comparison(name=name, against="a loop", target=3.0).of_values(ours, other, unit=unit)


def test_ratio_above_one_means_ours_is_better_in_time_and_in_rate() -> None:
    assert row(unit="ms").ratio == 2.5
    assert row(unit="images/s").ratio == 0.4


def test_both_ways_are_called_in_turn_twice_each() -> None:
    calls: list[str] = []
    alternate(lambda: calls.append("ours"), lambda: calls.append("other"), repeats=3)
    assert calls == ["ours", "ours", "other", "other"] * 3


def test_calls_are_given_as_times_or_rates() -> None:
    comparison = Comparison(name="a", against="b")
    slow = lambda: torch.ones(400, 400) @ torch.ones(400, 400)  # noqa: E731
    assert comparison.of_calls(slow, slow, repeats=3).unit == "ms"
    rate = comparison.of_calls(slow, slow, work=10, repeats=3)
    assert rate.unit == "images/s"
    assert rate.repeats == 3
    assert rate.threads == torch.get_num_threads()


def test_the_latest_row_of_a_comparison_counts(tmp_path: Path) -> None:
    for ours in (1.0, 2.0):
        append_line(tmp_path / "results.jsonl", vars(row(ours=ours)))
    append_line(tmp_path / "results.jsonl", vars(row("step/b")))
    assert [(r.name, r.ours) for r in read_speed_rows(tmp_path)] == [("step/a", 2.0), ("step/b", 2)]
    write_table(tmp_path)
    assert (tmp_path / "table.md").read_text() == markdown(read_speed_rows(tmp_path))
    assert (tmp_path / "ratios.png").read_bytes()[:4] == b"\x89PNG"


def test_a_ratio_below_its_goal_is_in_italics_and_versions_are_named() -> None:
    text = markdown([row(), row("step/fast", ours=1.0)])
    assert "| *2.5* | 3 |" in text
    assert "| 5 | 3 |" in text
    assert all(f"{name} {number}" in text for name, number in row().versions.items())
    assert "1 thread(s)" in text or "thread(s)" in text


def test_no_rows_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bench speed"):
        write_table(tmp_path)


@pytest.fixture
def network() -> CompositionalNetwork:
    config = NetworkConfig(
        num_layers=2, num_templates=2, channels=4, expansion=2, image_size=8, hidden=6,
        embedding=5, num_classes=3,
    )  # fmt: skip
    network = CompositionalNetwork(config).requires_grad_(False)
    for name in ("a", "b", "t"):
        network.domains.add(network.new_domain(name).eval())
    return network


def loop_on(network: CompositionalNetwork, learned: list[nn.Parameter], whole: bool) -> PlainLoop:
    a, b, target = network.domains
    return PlainLoop(network, [a, b], target, learned, rate=0.1, whole=whole)


BATCHES = [(torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])) for _ in range(2)]


@pytest.mark.parametrize("objective", ["adversarial", "moment_matching", "classifier_discrepancy"])
def test_loop_by_hand_moves_the_targets_xi_and_no_source(
    network: CompositionalNetwork, objective: str
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    xi = network.domains["t"].get_parameter("mixture.xi")
    getattr(loop_on(network, [xi], whole=False), objective)(BATCHES, torch.randn(6, 3, 8, 8))
    changed = {n for n, v in network.state_dict().items() if not v.equal(before[n])}
    assert "domains._domains.2.mixture.xi" in changed
    assert all(n.startswith("heads.") or n.endswith("2.mixture.xi") for n in changed)


@pytest.mark.parametrize("objective", ["adversarial", "moment_matching", "classifier_discrepancy"])
def test_published_loop_trains_the_whole_network(
    network: CompositionalNetwork, objective: str
) -> None:
    learned = list(network.templates.parameters())
    before = network.templates.expand.clone()
    getattr(loop_on(network, learned, whole=True), objective)(BATCHES, torch.randn(6, 3, 8, 8))
    assert not network.templates.expand.equal(before)


def test_loop_by_hand_minimizes_the_moment_distance(network: CompositionalNetwork) -> None:
    xi = network.domains["t"].get_parameter("mixture.xi")
    images = torch.randn(6, 3, 8, 8)
    loop = loop_on(network, [xi], whole=False)

    @torch.no_grad()
    def apart() -> float:
        known = [
            moments(network.features(x, d)[1])
            for (x, _), d in zip(BATCHES, loop.sources, strict=True)
        ]
        return float(moment_distance(moments(network.features(images, loop.target)[1]), known))

    first = apart()
    for _ in range(20):
        loop.moment_matching(BATCHES, images)
    assert apart() < first


def test_missing_backbones_are_made_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suites time predictions without gradients; pretraining within one could not learn."""
    made: list[tuple[str, bool]] = []

    class Setting:
        def backbone(self, network: str) -> None:
            made.append((network, torch.is_grad_enabled()))

    @torch.no_grad()
    def suite(setting: Setting) -> Iterator[SpeedRow]:
        assert len(made) == 2
        yield row()

    monkeypatch.setitem(SUITES, "step", suite)
    bench_speed(cast(Any, Setting()), ("step",), tmp_path, lambda line: None)
    assert made == [("compositional", True), ("unshared", True)]
    assert read_speed_rows(tmp_path)[0].ratio == 2.5


def test_the_suite_of_pictures_has_steps_an_adaptation_and_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported = [row("pictures/predict/PyTorch")]
    monkeypatch.setattr(pictures, "of_exports", lambda *_: exported)  # exporting takes seconds
    one = lambda network, domain, rate: {  # noqa: E731
        "adversarial": peers.Peer(lambda source, target: None, network, domain)
    }
    monkeypatch.setattr(peers, "PEERS", {"pytest": one, "not-installed": one})
    rows = {row.name.removeprefix("pictures/"): row for row in compare_on(TINY)}
    loops = ("adversarial", "moment_matching", "classifier_discrepancy",
             "information_maximization/TENT", "information_maximization/SHOT",
             "adversarial/pytest")  # fmt: skip
    steps = [f"step/{loop}" for loop in loops]
    assert list(rows) == [*steps, "adapt/8 pictures", "predict/materialized", "predict/PyTorch"]
    assert all(row.ours > 0 and row.other > 0 for row in rows.values())


def test_what_peers_train_of_a_pretrained_network_reaches_all_kernels() -> None:
    network = TINY.network(0).requires_grad_(True)
    encoder = peers.Encoder(network, network.domains["source-1"].use_batch_statistics(), False)
    encoder(TINY.pixels(0)).square().sum().backward()
    body = [value for name, value in network.named_parameters() if value.ndim == 4]
    assert body and all(value.grad is not None for value in body)


def test_growth_is_measured_in_pictures_and_domains_and_drawn_with_its_exponents(
    tmp_path: Path,
) -> None:
    rows = [*growth_of(TINY, counts=(2, 4), domains=(1, 10))]
    names = [row.name.removeprefix("growth/") for row in rows]
    grown = [f"{what} {count} pictures" for count in (2, 4) for what in (READ, ADAPT, MEMORY)]
    serving = ["switch", "256 rows of 64 domains"]
    many = [f"{what} {count} domains" for count in (1, 10)
            for what in ("memory of", "look-up among", "switch among")]  # fmt: skip
    assert names == ["decode", *grown, *serving, *many]
    assert all(row.ours > 0 and row.other > 0 for row in rows)
    plot_growth(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_an_exponent_is_that_of_a_power_law() -> None:
    assert exponent([1, 10, 100], [3.0, 30.0, 300.0]) == pytest.approx(1)
    assert exponent([1, 10, 100], [7.0, 7.0, 7.0]) == pytest.approx(0)
