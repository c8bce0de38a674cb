"""Figures as SVG text inside an HTML page: coloured by its CSS, named for screen readers, in the page's own font."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

# Stand-ins that matplotlib writes into the SVG and that become CSS variables, so that one drawing serves the light
# page, the dark page and paper.
INK, MUTED, GRID, SURFACE = "#0a0101", "#0a0102", "#0a0103", "#0a0104"
ACCENT, BASELINE = "#0a0105", "#0a0106"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", SURFACE: "surface", ACCENT: "s1", BASELINE: "baseline"}


@dataclass(frozen=True)
class Style:
    """How a series is told apart: by colour, and by dashes and marker for those who do not see the colour."""

    color: str
    dashes: tuple[float, ...]
    marker: str


def _style(index: int, dashes: tuple[float, ...], marker: str) -> Style:
    color = f"#0a02{index:02x}"
    _VARIABLES[color] = f"s{index}"
    return Style(color, dashes, marker)


SERIES = (
    _style(1, (), "o"),
    _style(2, (5, 3), "s"),
    _style(3, (2, 2), "^"),
    _style(4, (7, 2, 1, 2), "D"),
    _style(5, (1, 2), "v"),
    _style(6, (9, 3), "P"),
    _style(7, (4, 1, 1, 1, 1, 1), "X"),
    _style(8, (3, 5), "p"),
)


def style_of(index: int, *, color: str | None = None) -> Style:
    """Return the style of the index-th series: colours come again after the eighth, then with other dashes and markers.

    Args:
        index: from 0.
        color: instead of the series' own, for series that stand back.
    """
    own, shape = SERIES[index % len(SERIES)], SERIES[(index + index // len(SERIES)) % len(SERIES)]
    return Style(color or own.color, shape.dashes, shape.marker)


def variable(color: str) -> str:
    """Return the name of the CSS variable that a colour of a drawing becomes."""
    return _VARIABLES[color]


WIDTH = 400  # units of the drawing; the page scales it to about as many pixels, so sizes below are nearly pixels
TEXT = 12.0
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "peterrec",
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.size": TEXT,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "legend.frameon": False,
}


def draw(key: str, title: str, description: str, height: float, paint: Callable[[Any], None]) -> Markup:
    """Draw one figure and return it as an `<svg>` element for the body of a page.

    Args:
        key: unique on the page; ids inside the figure begin with it.
        title: what a screen reader calls the figure.
        description: what the figure shows, in words.
        height: in units of the drawing, of which there are 400 across.
        paint: draws into the axes it is given.
    """
    out = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        # The page's font draws the letters; that matplotlib's own lacks some only makes its measure a guess.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcdefaults()  # the same drawing whatever style the user has set up
        mpl.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return Markup(_for_page(out.getvalue(), key, title, description))


def _for_page(text: str, key: str, title: str, description: str) -> str:
    root = ET.fromstring(text)
    kept = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}style", "}metadata")):
                parent.remove(child)
    for element in root.iter():
        _clean(element, key, kept)
    view = root.get("viewBox")
    root.attrib.clear()
    root.attrib.update({"viewBox": str(view), "role": "img", "aria-labelledby": f"{key}-title {key}-desc"})
    for index, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{key}-{tag}"})
        element.text = words
        root.insert(index, element)
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element, key: str, kept: set[str]) -> None:
    """Drop namespaces, unused ids and fonts; make ids unique on the page; put variables for colours."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    identity = attributes.pop("id", None)
    element.attrib.clear()
    for name, value in attributes.items():
        if name == "transform" and value.startswith("rotate(-0 "):
            continue
        element.set(name, _value(name, value, key))
    if identity in kept:
        element.set("id", f"{key}-{identity}")
    elif identity is not None and identity.startswith("series:"):
        element.set("data-series", identity.removeprefix("series:"))
    if element.text is not None and not element.text.strip():
        element.text = None
    element.tail = None


def _value(name: str, value: str, key: str) -> str:
    if name == "style":
        value = re.sub(r"font-family:[^;]*;?\s*", "", value)
        value = re.sub(r"#0a0[12]\w\w", lambda found: f"var(--{_VARIABLES[found[0]]})", value)
    value = value.replace("url(#", f"url(#{key}-")
    if name == "href":
        value = f"#{key}-{value.removeprefix('#')}"
    if name in ("d", "x", "y", "width", "height", "transform"):
        value = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
        value = " ".join(value.split())
    return value
