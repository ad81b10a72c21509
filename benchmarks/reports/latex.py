"""Result rows to LaTeX tables."""

from collections.abc import Iterable

from benchmarks.harness.rows import ResultRow
from benchmarks.reports.tables import HEADER, grids

LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "→": r"$\to$",
}


def latex(rows: Iterable[ResultRow]) -> str:
    """The tables of `markdown` for the package booktabs."""

    def escape(text: str) -> str:
        return "".join(LATEX.get(character, character) for character in text)

    blocks = []
    for grid in grids(rows):
        lines = grid.marked(escape, lambda text: rf"\textbf{{{escape(text)}}}")
        cells = [" & ".join(line) + r" \\" for line in lines]
        cells[grid.bounds : grid.bounds] = [r"\midrule"] if grid.bounds < len(lines) else []
        blocks += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape('. '.join(grid.caption))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(HEADER) - 1)}}}",
            r"\toprule",
            " & ".join(HEADER) + r" \\",
            r"\midrule",
            *cells,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    return "\n".join(blocks)
