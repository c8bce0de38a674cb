"""Hooks of mkdocs: pages and files that lie outside docs/, with links that lead within the site."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs reads this file alone
from notebook_pages import notebook_files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "SECURITY.md": "security.md",
}
SOURCES = {uri: source for source, uri in PAGES.items()}
LINK = re.compile(r"\[(?P<text>[^]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)]*)?\)")
FENCED = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root, and the notebooks, to those of docs/."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    for file in notebook_files(config):
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page whose links, which are written for readers of the repository, lead within the site."""
    uri = page.file.src_uri
    folder = "notebooks" if uri.startswith("notebooks/") else posixpath.dirname(SOURCES.get(uri, f"docs/{uri}"))

    def site_link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match["target"]))
        if path.endswith(".png") and files.get_file_from_path(path) is not None:
            return match[0]  # a figure of a notebook, which is beside its page
        if (ROOT / path).is_dir():
            return match["text"]
        is_page = path in PAGES or path.startswith("docs/")
        uri = PAGES.get(path, path.removeprefix("docs/")) if is_page else _publish(path, config, files)
        relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{_text(match['text'], uri, files)}]({relative}{match['anchor'] or ''})"

    # Python-Markdown reads what stands within HTML only where it is told to.
    parts = FENCED.split(markdown.replace("<details>", '<details markdown="1">'))
    return "".join(part if part.startswith("```") else LINK.sub(site_link, part) for part in parts)


def _text(text: str, uri: str, files: Files) -> str:
    """Return the text of a link: the title of the page where it is the name of a file."""
    file = files.get_file_from_path(uri)
    is_name = re.fullmatch(r"[\w./-]+\.md", text)
    return str(file.page.title) if is_name and file and file.page and file.page.title else text


def _publish(path: str, config: MkDocsConfig, files: Files) -> str:
    """Put a file of the repository on the site, and return where."""
    uri = f"repository/{path}"
    if (ROOT / path).is_file() and files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, content=(ROOT / path).read_bytes()))
    return uri
