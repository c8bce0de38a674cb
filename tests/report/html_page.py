"""A page as a browser would read it, as far as tests ask."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser would make of the page, as far as the tests ask."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.tags: list[str] = []
        self.headings: list[int] = []
        self.words: list[str] = []
        self.best: list[str] = []
        self.feed(html)
        self.close()
        self.mistakes += [f"<{tag}> is never closed" for tag in self.open]
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        by_name = {name: value or "" for name, value in attributes}
        if len(by_name) < len(attributes):
            self.mistakes.append(f"<{tag}> has an attribute twice")
        if "id" in by_name:
            self.ids.append(by_name["id"])
        if by_name.get("href", "").startswith("#"):
            self.references.add(by_name["href"][1:])
        self.references.update(by_name.get("aria-labelledby", "").split())
        self.references.update(re.findall(r"url\(#([^)]+)\)", " ".join(by_name.values())))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if "strong" in self.open and data.strip() != "(best)":
            self.best.append(data)
