"""A result row for tests to change with `dataclasses.replace`."""

from benchmarks.harness.rows import ResultRow

ROW = ResultRow(
    benchmark="digits",
    profile="quick",
    data="files",
    data_fingerprint="f00d",
    sources=["mnist", "meter"],
    target="usps",
    seed=0,
    strategy="information_maximization",
    trains="mixture_weights",
    network="compositional",
    recipe="paper",
    oracle=False,
    accuracy=74.25,
    last_accuracy=73.5,
    source_only=56.0,
    batch_norm=65.5,
    learned_parameters=64,
    total_parameters=40_000,
    adapter_bytes=9_000,
    seconds=12.5,
    peak_memory_mb=420.0,
    selection="last step",
    commit="abc1234",
    device="cpu",
    versions={},
    config={},
)
