"""From committed result rows to tables and plots; and the pictures of one backbone."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adapters import load_adaptation
from benchmarks.harness.cells import Splits
from benchmarks.harness.measure import ROOT
from benchmarks.harness.plan import TRAINED, BackboneJob
from benchmarks.harness.rows import ResultRow, latest, read_rows
from benchmarks.reports.best_plot import plot_best
from benchmarks.reports.latex import latex
from benchmarks.reports.picture_plots import plot_confusion, plot_contact_sheet
from benchmarks.reports.plots import plot_accuracy, plot_embeddings, plot_mixtures
from benchmarks.reports.rotation_table import rotation_markdown
from benchmarks.reports.tables import csv, groups, markdown
from da_compose import Backbone, Domain, load_backbone, probabilities
from da_compose.images import ImageSet
from da_compose.inference import batches, predict_logits
from da_compose.model.mixture import MixtureWeights
from da_compose.starts import make_start, plain_start_name
from da_compose.storage.files import replacing

RESULTS = ROOT / "benchmarks" / "results"
DRAWN_IMAGES = 150  # of each domain in a t-SNE


def write_report(folder: Path) -> list[ResultRow]:
    """Tables and accuracy plots of all rows in `folder/results.jsonl`; returns the rows.

    Where there are several targets, `rotation.md` has them side by side.
    """
    rows = read_rows(folder / "results.jsonl")
    if not rows:
        raise ValueError(f"no results in {folder}; run `da-compose bench` first")
    write_tables(rows, folder)
    if len({row.target for row in rows}) > 1:
        with replacing(folder / "rotation.md") as temporary:
            temporary.write_text(rotation_markdown(rows), encoding="utf-8")
    for group in groups(rows):
        plot_accuracy(group, folder / f"{group_name(group[0])}-accuracy.png")
    for (profile, data), own in by_data(rows).items():
        plot_best(own, folder / f"{profile}-{data[:6]}-best.png")
    return rows


def write_tables(rows: Iterable[ResultRow], folder: Path) -> None:
    """Write table.md, table.csv and table.tex, each replaced whole."""
    rows = list(rows)
    for ending, render in (("md", markdown), ("csv", csv), ("tex", latex)):
        with replacing(folder / f"table.{ending}") as temporary:
            temporary.write_text(render(rows), encoding="utf-8")


def by_data(rows: Iterable[ResultRow]) -> dict[tuple[str, str], list[ResultRow]]:
    """Latest rows of each profile and data, whatever the target."""
    parted: dict[tuple[str, str], list[ResultRow]] = {}
    for row in latest(rows):
        parted.setdefault((row.profile, row.data_fingerprint), []).append(row)
    return parted


def group_name(row: ResultRow) -> str:
    """Start of the file names of one group of rows."""
    return f"{row.profile}-{row.target}-{row.data_fingerprint[:6]}"


def draw_backbone(
    job: BackboneJob, domains: Mapping[str, Splits], runs: Path, folder: Path
) -> None:
    """What adaptation by information maximization changed: features, mixtures, predictions.

    t-SNE before and after adaptation; for a compositional network also every domain's mixture
    weights, the confusion matrix, and pictures whose prediction changed.
    """
    run = job.folder(runs)
    backbone_path = run / "backbone.safetensors"
    adapter_path = run / f"information_maximization-{TRAINED[job.network]}.safetensors"
    if not backbone_path.exists() or not adapter_path.exists():
        return
    backbone = load_backbone(backbone_path)
    adapted = load_adaptation(adapter_path, backbone).domain
    name = f"{job.profile.name}-{job.target}-{job.data_fingerprint[:6]}-{job.recipe}-{job.network}"
    start = folder / name
    caption = (
        f"{job.benchmark.name}, recipe {job.recipe}, {job.network}, seed {job.seed}, "
        f"data: {job.data}"
    )
    target = domains[job.target]
    few = target.train.images[drawn(target.train)]
    plain = make_start(backbone, plain_start_name(backbone), job.target, few)
    plain.use_statistics(0.0)
    if job.network == "compositional":
        shown = {domain.name: domain for domain in backbone.network.domains}
        shown[f"{job.target} (adapted)"] = adapted
        if isinstance(adapted.mixture, MixtureWeights):
            mixtures = {n: d.mixture().detach().numpy() for n, d in shown.items()}
            plot_mixtures(mixtures, _path(start, "mixtures"), caption=caption)
        logits = (
            predict_logits(backbone.network, domain, target.test.images)
            for domain in (plain.target, adapted)
        )
        before, after = (probabilities(heads).argmax(dim=1) for heads in logits)
        names, labels = backbone.class_names, target.test.labels
        caption_of_test = f"{caption}; test split of {job.target}"
        plot_confusion(labels, after, names, _path(start, "confusion"), caption_of_test)
        plot_contact_sheet(
            target.test.images, labels, before, after, names, _path(start, "changed"),
            caption_of_test,
        )  # fmt: skip
    features = {
        source: embeddings(backbone, backbone.network.domains[source], domains[source].test)
        for source in job.sources
    }
    plot_embeddings(
        features | {job.target: embeddings(backbone, plain.target, target.test)},
        features | {job.target: embeddings(backbone, adapted, target.test)},
        {n: domains[n].test.labels[drawn(domains[n].test)] for n in (*job.sources, job.target)},
        job.target, _path(start, "embeddings"), job.seed,
        class_names=backbone.class_names, caption=caption,
    )  # fmt: skip


def _path(start: Path, kind: str) -> Path:
    return start.with_name(f"{start.name}-{kind}.png")


def drawn(data: ImageSet) -> NDArray[np.int64]:
    """Which images of a split are drawn: spread over it, as some are sorted by class."""
    return np.unique(np.linspace(0, len(data) - 1, DRAWN_IMAGES).astype(np.int64))


@torch.no_grad()
def embeddings(backbone: Backbone, domain: Domain, data: ImageSet) -> NDArray[np.float32]:
    """Embeddings (M, F) of the drawn images of a split."""
    network = backbone.network
    parts = [
        network.features(batch, domain)[1].cpu()
        for batch in batches(network, data.images[drawn(data)])
    ]
    return torch.cat(parts).numpy()
