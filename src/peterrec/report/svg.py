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
_TINTS = ("good", "good-tint", "even", "even-tint", "bad", "bad-tint")
_NAMES = ("ink", "muted", "line", "surface", "baseline", *_TINTS, *(f"s{index}" for index in range(1, 9)))
_VARIABLES = {f"#0a01{index:02x}": name for index, name in enumerate(_NAMES)}
INK, MUTED, GRID, SURFACE, BASELINE, GOOD, GOOD_TINT, EVEN, EVEN_TINT, BAD, BAD_TINT, *_PALETTE = _VARIABLES
ACCENT = _PALETTE[0]
WIDTH = 400  # units of the drawing; the page scales it to about as many pixels, so sizes below are nearly pixels
TEXT = 12.0
_SETTINGS = {
    **{"svg.fonttype": "none", "font.size": TEXT, "text.color": INK},
    "text.parse_math": False,  # a name with dollar signs is a name
    **{"axes.edgecolor": GRID, "axes.linewidth": 1.0, "axes.axisbelow": True, "axes.labelcolor": MUTED},
    **{"axes.spines.top": False, "axes.spines.left": False, "axes.spines.right": False},
    **{"axes.formatter.useoffset": False, "grid.color": GRID, "grid.linewidth": 1.0, "legend.frameon": False},
    **{"xtick.color": GRID, "xtick.labelcolor": MUTED, "ytick.color": GRID, "ytick.labelcolor": MUTED},
    "ytick.left": False,
}


@dataclass(frozen=True)
class Style:
    """Marks of a series: its colour, and dashes and a marker for readers who do not see the colour.

    Attributes:
        color: one of this module's stand-ins.
        dashes: lengths of dash and gap; empty for a solid line.
        marker: as matplotlib names it.
        legend_path: the marker as an SVG path, in the middle of 24 x 12 units.
    """

    color: str
    dashes: tuple[float, ...]
    marker: str
    legend_path: str = ""

    @property
    def variable(self) -> str:
        """Name of the CSS variable that the colour becomes."""
        return _VARIABLES[self.color]

    @property
    def legend_dashes(self) -> str:
        """Dashes of the line in a legend."""
        return " ".join(f"{2 * length:g}" for length in self.dashes)


_SHAPES = (
    ((), "o", "M12 3a3 3 0 1 0 .01 0z"),
    ((5, 3), "s", "M9 3h6v6h-6z"),
    ((2, 2), "^", "M12 2.5l3.5 6.5h-7z"),
    ((7, 2, 1, 2), "D", "M12 2l4 4l-4 4l-4 -4z"),
    ((1, 2), "v", "M12 9.5l3.5 -6.5h-7z"),
    ((9, 3), "P", "M11 2.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5v-2h2.5z"),
    ((4, 1, 1, 1, 1, 1), "X", "M9 3l3 2l3 -2l-2 3l2 3l-3 -2l-3 2l2 -3z"),
    ((3, 5), "p", "M12 2.5l3.5 2.7l-1.3 4h-4.4l-1.3 -4z"),
)


def style_of(index: int, *, color: str | None = None) -> Style:
    """Return the style of the index-th series: colours come again after the eighth, then with other dashes and markers.

    Args:
        index: from 0.
        color: instead of the series' own, for series that stand back.
    """
    shape = _SHAPES[(index + index // len(_SHAPES)) % len(_SHAPES)]
    return Style(color or _PALETTE[index % len(_PALETTE)], *shape)


def draw(key: str, title: str, description: str, height: float, paint: Callable[[Any], None]) -> Markup:
    """Draw one figure and return it as an `<svg>` element for the body of a page.

    Args:
        key: unique on the page; ids inside the figure are derived from it.
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
        mpl.rcParams.update(_SETTINGS | {"svg.hashsalt": key})
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=no_metadata)
    return Markup(_for_page(out.getvalue(), key, title, description))


def _for_page(text: str, key: str, title: str, description: str) -> str:
    drawing = ET.fromstring(text)
    linked = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    attributes = {"viewBox": str(drawing.get("viewBox")), "role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    root = ET.Element("svg", attributes)
    for tag, words in (("title", title), ("desc", description)):
        ET.SubElement(root, tag, {"id": f"{key}-{tag}"}).text = words
    for child in drawing[1:]:  # the first holds matplotlib's style sheet
        for element in child.iter():
            _clean(element, linked)
        root.append(child)
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element, linked: set[str]) -> None:
    """Drop namespaces, fonts, and ids that nothing links to; put variables for colours; shorten numbers."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    identity = attributes.pop("id", "")
    if identity in linked:
        attributes["id"] = identity
    elif identity.startswith("series:"):
        attributes["data-series"] = identity.removeprefix("series:")
    if "style" in attributes:
        style = re.sub(r"font-family:[^;]*;?\s*", "", attributes["style"])
        attributes["style"] = re.sub(r"#0a01\w\w", lambda color: f"var(--{_VARIABLES[color[0]]})", style)
    for name in attributes.keys() & {"d", "x", "y", "width", "height", "transform"}:
        short = re.sub(r"-?\d+\.\d+", lambda digits: f"{round(float(digits[0]), 2):g}", attributes[name])
        attributes[name] = " ".join(short.split())
    element.attrib.clear()
    element.attrib.update(attributes)
    element.text, element.tail = element.text if (element.text or "").strip() else None, None
