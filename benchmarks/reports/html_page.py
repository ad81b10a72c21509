"""Parts that an HTML report is made of: the page and its style, tables, pictures, curves."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3;
  --before: #c3cad2; --after: #8fbcec; --focus: #0b63ce;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #111418; --card: #1b2026; --ink: #e6e9ec; --soft: #9aa5b1; --line: #313943;
    --before: #4a5460; --after: #2c5f96; --focus: #8fbcec;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 72rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere;
}
header { padding: 1rem 0.25rem 0; }
h1 { margin: 0 0 0.5rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 0 0 0.75rem; font-size: 1.2rem; }
h3 { margin: 1.25rem 0 0.5rem; font-size: 1rem; }
summary { cursor: pointer; }
summary h2 { display: inline; }
details[open] > summary { margin-bottom: 0.75rem; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
header p, section p, dd, small { color: var(--soft); }
p { margin: 0 0 0.75rem; }
section {
  margin: 1rem 0; padding: 1.25rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
}
.wide { overflow-x: auto; }
.long { max-height: 24rem; overflow-y: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.75rem 0.4rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { font-weight: 600; vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
.facts tbody th { width: 14rem; }
.numbers td, .numbers th:not(:first-child) { text-align: right; white-space: nowrap; }
.numbers th { overflow-wrap: normal; }
.bars td { width: 38%; }
.bar {
  padding: 0 0.4rem; border-radius: 0.2rem; background-repeat: no-repeat;
  background-size: var(--share) 100%;
}
.before { background-image: linear-gradient(var(--before), var(--before)); }
.after { background-image: linear-gradient(var(--after), var(--after)); }
.estimates th { white-space: nowrap; }
.estimates td:first-of-type { width: 55%; }
.estimates td:last-child { white-space: nowrap; }
.estimate {
  position: relative; height: 1.5rem; border-radius: 0.2rem; background-repeat: no-repeat;
  background-size: var(--share) 100%;
}
.estimate::after {
  content: ""; position: absolute; top: 0.45rem; height: 0.6rem;
  left: var(--low); width: calc(var(--high) - var(--low));
  border: solid var(--ink); border-width: 0 2px;
  background: linear-gradient(var(--ink), var(--ink)) center / 100% 2px no-repeat;
}
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; margin: 1rem 0 0; }
dt { font-weight: 600; }
dd { margin: 0; }
.answers { grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.answers div {
  padding: 1rem 1.25rem; background: var(--card);
  border: 1px solid var(--line); border-top: 4px solid var(--after); border-radius: 0.6rem;
}
.answers b { display: block; color: var(--ink); font-size: 1.6rem; line-height: 1.3; }
code { font: 0.875em ui-monospace, Menlo, Consolas, monospace; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
.plots img, .wide > img { background: #fff; border-radius: 0.4rem; padding: 0.5rem; }
.plots img { width: 100%; max-width: 30rem; }
.wide > img { width: 100%; min-width: 44rem; }
.pictures {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr));
}
figure { margin: 0; font-size: 0.875rem; line-height: 1.3; }
figure img { width: 100%; border-radius: 0.3rem; display: block; margin-bottom: 0.3rem; }
small { display: block; }
@media (max-width: 40rem) {
  .facts tbody th { width: 8.5rem; }
  section { padding: 1rem; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: 0.5rem; }
  .numbers, .estimates { font-size: 0.875rem; }
  .estimates :is(thead th, td:last-child) { white-space: normal; }
  .estimates td:first-of-type { width: 45%; }
  .pictures { grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); gap: 0.75rem; }
  .answers { grid-template-columns: 1fr; }
}
@page { margin: 15mm; }
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; background: none; font-size: 10pt; }
  section { padding: 0; border: 0; }
  h2, h3, h3 + p { break-after: avoid; }
  tr, figure, img, .answers div { break-inside: avoid; }
  summary { list-style: none; break-after: avoid; }
  summary h2 { display: block; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .long { max-height: none; }
  .long, .wide { overflow: visible; }
  .wide > img { min-width: 0; }
  .answers { grid-template-columns: repeat(3, 1fr); }
  .pictures { grid-template-columns: repeat(6, 1fr); }
  .bar, .estimate, .estimate::after { print-color-adjust: exact; }
}
"""


def page(title: str, summary: str, sections: Mapping[str, str], details: Mapping[str, str]) -> str:
    """A whole page: a title as text; a summary, and sections by heading, as HTML.

    Details are folded. Empty sections are left out. The policy in its head keeps a browser from
    loading anything else.
    """
    parts = [f"<h2>{heading}</h2>\n{text}" for heading, text in sections.items() if text]
    parts += [
        f"<details><summary><h2>{heading}</h2></summary>\n{text}\n</details>"
        for heading, text in details.items()
        if text
    ]
    body = "\n".join(f"<section>\n{part}\n</section>" for part in parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{summary}
</header>
<main>
{body}
</main>
</body>
</html>
"""


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), kind: str = "facts") -> str:
    """A table of cells that are HTML; the first of each row is its heading. kind: of `STYLE`."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    top = f"<thead><tr>{heads}</tr></thead>\n" if head else ""
    lines = [
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>\n'
        for first, *others in rows
    ]
    return (
        f'<div class="wide"><table class="{kind}">\n{top}<tbody>\n{"".join(lines)}'
        "</tbody></table></div>"
    )


def image(content: bytes, kind: str, alt: str) -> str:
    """An image file inside the page; kind: png or jpeg; alt: text that says what it shows."""
    code = b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{code}" alt="{escape(alt)}">'


def curve(title: str, steps: Sequence[int], values: Sequence[float], marked: int) -> str:
    """A plot of one figure by step, as an image; the marked step has a dashed line."""
    figure = Figure(figsize=(4, 2.5), dpi=150, layout="constrained")
    panel = figure.subplots()
    panel.plot(steps, values, linewidth=1.2, marker="." if len(steps) < 20 else None)
    panel.axvline(marked, color="tab:orange", linestyle="--", linewidth=1.2)
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("step", fontsize=9)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.tick_params(labelsize=8)
    file = BytesIO()
    figure.savefig(file, format="png")
    alt = f"{title}: {values[0]:.4g} at the first step, {values[-1]:.4g} at the last"
    return image(file.getvalue(), "png", alt)
