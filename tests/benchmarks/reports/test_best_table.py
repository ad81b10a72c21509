from dataclasses import replace

from benchmarks.reports.best_table import LINES, best_markdown
from tests.benchmarks.rows import ROW

NOTHING = {"trains": "nothing", "learned_parameters": 0}
OTHER = {"network": "unshared", "trains": "input_adapter"}


def lines_of(text: str) -> dict[str, list[str]]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}


def test_the_best_of_each_side_stands_beside_what_learns_nothing() -> None:
    rows = [
        replace(ROW, strategy="source_only", accuracy=50.0, **NOTHING),
        replace(ROW, strategy="source_only", accuracy=99.0, network="unshared", **NOTHING),
        replace(ROW, strategy="moment_matching", accuracy=60.0),
        replace(ROW, accuracy=61.0),
        replace(ROW, accuracy=63.0, seed=1),
        replace(ROW, accuracy=70.0, **OTHER),
        replace(ROW, strategy="oracle", oracle=True, accuracy=80.0),
        replace(ROW, strategy="oracle", oracle=True, accuracy=95.0, trains="all"),
        replace(ROW, recipe="strong", accuracy=90.0),
    ]
    found = lines_of(best_markdown(rows))
    assert list(found) == ["", "---", *LINES]
    assert [cells for name, cells in found.items() if name in LINES] == [
        ["50.0 ± -", "-"],
        ["-", "-"],
        ["-", "-"],
        ["62.0 ± 1.4", "90.0 ± -"],
        ["70.0 ± -", "-"],
        ["80.0 ± -", "-"],
    ]


def test_the_caption_counts_seeds_recipe_by_recipe() -> None:
    rows = [ROW, replace(ROW, seed=1), replace(ROW, recipe="strong")]
    assert "over seeds: 2 (paper), 1 (strong)." in best_markdown(rows)
