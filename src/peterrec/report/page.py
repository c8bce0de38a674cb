"""Drawing of the templates that make the reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from peterrec.report import formatting


def escape_markdown(text: str) -> str:
    """Return a text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]|~]|<(?=[A-Za-z/!?]))", r"\\\1", text).replace("\n", " ")


def render_template(name: str, context: Mapping[str, Any]) -> str:
    """Draw a template: HTML is escaped, and a name that is not in the context is an error."""
    return _environment().get_template(name).render(context)


def render_paragraphs(name: str, context: Mapping[str, Any]) -> list[str]:
    """Draw a template of text; return its paragraphs, without the line breaks within them."""
    paragraphs = render_template(name, context).strip().split("\n\n")
    return [re.sub(r"[ \n]+", " ", paragraph.strip()) for paragraph in paragraphs]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("peterrec.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = ("compact", "count", "duration", "metric", "number", "percent", "plural", "share", "size")
    environment.filters.update({name: getattr(formatting, name) for name in names})
    environment.filters.update(phrase=formatting.join, markdown=escape_markdown)
    return environment
