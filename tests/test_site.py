"""The documentation site: it builds without a warning, has every exported name, and asks no other server."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import peterrec
from serving.page.conftest import ARGUMENTS, CHROMIUM

ROOT = Path(__file__).resolve().parents[1]
FETCHED = re.compile(r'<(?:script|link|img|iframe|source|video|embed)\b[^>]*?\s(?:src|srcset|href)="([^"]+)"')
CHECKED_TAGS = ("blockquote", "h1", "h2", "h3", "img", "li", "pre", "td")
GITHUB = MarkdownIt("gfm-like", {"linkify": False, "html": True})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, elsewhere."""
    out = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return out


def test_the_reference_has_every_exported_name_and_no_other(site: Path) -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    entries = Counter(re.findall(r"^::: peterrec\.(\w+)$", pages, flags=re.MULTILINE))
    entries.pop("errors")  # the subclasses of PeterRecError
    assert entries == Counter(peterrec.__all__), "write `::: peterrec.NAME` on a page of docs/api"
    html = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    assert {name for name in peterrec.__all__ if f'id="peterrec.{name}"' not in html} == set()


def test_the_list_of_the_reference_names_what_its_pages_have() -> None:
    """docs/api/index.md names all but settings, which are of one page."""
    rows = (ROOT / "docs" / "api" / "index.md").read_text()
    listed = set(re.findall(r"`(\w+)`", "".join(line for line in rows.splitlines() if line.startswith("| ["))))
    assert {name for name in peterrec.__all__ if not name.endswith("Config")} - listed == {"__version__"}


def test_errors_have_their_subclasses(site: Path) -> None:
    html = (site / "api" / "errors.html").read_text()
    missing = [error for error in peterrec.PeterRecError.__subclasses__() if f">{error.__name__}<" not in html]
    assert [error for error in missing if error.__module__ == "peterrec.errors"] == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    foreign = {
        (page.relative_to(site), target)
        for page in pages
        for target in FETCHED.findall(page.read_text())
        if re.match(r"(?:\w+:)?//", target)
    }
    foreign |= {
        (page.relative_to(site), target)
        for page in site.rglob("*.css")
        for target in re.findall(r"url\(['\"]?((?:\w+:)?//[^)]+)|@import\s+([^;]+)", page.read_text())
    }
    assert foreign == set()
    # The theme's script fetches a library for diagrams, where a page has some.
    assert [page for page in pages if 'class="mermaid"' in page.read_text()] == []


def pages_of_the_site() -> dict[str, Path]:
    """Return the Markdown of each page that is not made of docstrings or a notebook, by its name on the site."""
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)
    names = re.findall(r"[\w./-]+\.md", yaml.dump(settings["nav"]))
    root = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
    root |= {"security.md": "SECURITY.md", "code-of-conduct.md": "CODE_OF_CONDUCT.md"}
    sources = {name: ROOT / root[name] if name in root else ROOT / "docs" / name for name in names}
    return {name: path for name, path in sources.items() if not name.startswith(("api/", "notebooks/"))}


def tags(html: str) -> Counter[str]:
    counts = Counter(re.findall(r"<([a-z][a-z0-9]*)\b", html))
    return Counter({tag: counts[tag] for tag in CHECKED_TAGS})


@pytest.mark.parametrize("name", sorted(pages_of_the_site()))
def test_a_page_has_the_lists_and_tables_that_github_shows(site: Path, name: str) -> None:
    html = (site / name).with_suffix(".html").read_text()
    article = re.search(r"<article.*?</article>", html, flags=re.DOTALL)
    assert article is not None
    assert tags(article[0]) == tags(GITHUB.render(pages_of_the_site()[name].read_text()))


def test_figures_of_notebooks_are_there(site: Path) -> None:
    for page in (site / "notebooks").glob("*.html"):
        for picture in re.findall(r'<img[^>]* src="([^":]+)"', page.read_text()):
            assert (page.parent / picture).is_file(), f"{page.name}: {picture}"


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_in_a_browser_it_is_searched_darkened_and_fits_a_phone(url: str) -> None:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    elsewhere: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: request.url.startswith((url, "data:")) or elsewhere.append(request.url))
        page.goto(f"{url}/index.html?q=adapt_jointly")  # what is typed before the scripts run would be lost
        page.locator(".md-search-result__link", has_text="adapt_jointly").first.wait_for(state="attached")
        page.keyboard.press("Escape")
        page.goto(f"{url}/serving.html")
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.locator("label[title=Dark]").click()
        assert page.evaluate(background) != light
        page.set_viewport_size({"width": 390, "height": 844})
        for name in ("index", "configuration", "results", "results/paper", "api/models", "paper"):
            page.goto(f"{url}/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        browser.close()
    assert elsewhere == []
