"""From committed result rows to tables, plots and README; and the pictures of one backbone."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from adapters import load_adaptation
from adapters.selection import batches
from adapters.start import make_start, plain_start_name
from benchmarks.digits import TRAINED, BackboneJob
from benchmarks.measure import ROOT
from benchmarks.plots import plot_accuracy, plot_embeddings, plot_mixtures
from benchmarks.results import ResultRow, read_rows
from benchmarks.run import Splits
from benchmarks.tables import groups, insert_between_markers, markdown, write_tables
from da_compose import Backbone, Domain, load_backbone
from da_compose.files import replacing
from da_compose.images import ImageSet

RESULTS = ROOT / "benchmarks" / "results"
DRAWN_IMAGES = 150  # of each domain in a t-SNE


def write_report(folder: Path) -> list[ResultRow]:
    """Tables and accuracy plots of all rows in `folder/results.jsonl`; returns the rows."""
    rows = read_rows(folder / "results.jsonl")
    if not rows:
        raise ValueError(f"no results in {folder}; run `da-compose bench digits` first")
    write_tables(rows, folder)
    for group in groups(rows):
        plot_accuracy(group, folder / f"{group_name(group[0])}-accuracy.png")
    return rows


def group_name(row: ResultRow) -> str:
    """Start of the file names of one group of rows."""
    return f"{row.profile}-{row.target}-{row.data_fingerprint[:6]}"


def update_readme(readme: Path, rows: Iterable[ResultRow], profile: str = "full") -> None:
    """Put the profile's tables between README's markers."""
    chosen = [row for row in rows if row.profile == profile]
    if not chosen:
        raise ValueError(f"no rows of profile {profile!r} to put into {readme}")
    insert_table(readme, "digits", markdown(chosen))


def insert_table(readme: Path, name: str, table: str) -> None:
    """Replace the table between README's markers of this name; the file is replaced whole."""
    text = insert_between_markers(readme.read_text(encoding="utf-8"), name, table)
    with replacing(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


def draw_backbone(
    job: BackboneJob, domains: Mapping[str, Splits], runs: Path, folder: Path
) -> None:
    """Mixture weights of every domain, and t-SNE of features before and after adaptation."""
    run = job.folder(runs)
    backbone_path = run / "backbone.safetensors"
    adapter_path = run / f"information_maximization-{TRAINED[job.network]}.safetensors"
    if not backbone_path.exists() or not adapter_path.exists():
        return
    backbone = load_backbone(backbone_path)
    adapted = load_adaptation(adapter_path, backbone).domain
    name = f"{job.profile.name}-{job.target}-{job.data_fingerprint[:6]}-{job.recipe}-{job.network}"
    caption = f"digits, recipe {job.recipe}, {job.network}, seed {job.seed}, data: {job.data}"
    if job.network == "compositional":
        shown = {domain.name: domain for domain in backbone.network.domains}
        shown[f"{job.target} (adapted)"] = adapted
        mixtures = {n: d.mixture().detach().numpy() for n, d in shown.items()}
        plot_mixtures(mixtures, folder / f"{name}-mixtures.png", caption=caption)
    target = domains[job.target]
    plain = make_start(
        backbone, plain_start_name(backbone), job.target, target.train.images[:DRAWN_IMAGES]
    )
    plain.use_statistics(0.0)
    before, after, labels = {}, {}, {}
    for source in job.sources:
        test = domains[source].test
        before[source] = after[source] = embeddings(
            backbone, backbone.network.domains[source], test
        )
        labels[source] = test.labels[:DRAWN_IMAGES]
    before[job.target] = embeddings(backbone, plain.target, target.test)
    after[job.target] = embeddings(backbone, adapted, target.test)
    labels[job.target] = target.test.labels[:DRAWN_IMAGES]
    plot_embeddings(
        before, after, labels, job.target, folder / f"{name}-embeddings.png", job.seed,
        caption=caption,
    )  # fmt: skip


@torch.no_grad()
def embeddings(backbone: Backbone, domain: Domain, data: ImageSet):
    """Embeddings (M, F) of the first images of a split."""
    network = backbone.network
    parts = [
        network.features(batch, domain.eval())[1].cpu()
        for batch in batches(network, data.images[:DRAWN_IMAGES])
    ]
    return torch.cat(parts).numpy()
