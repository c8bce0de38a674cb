"""The page on narrow screens, in the dark, for those who use no mouse, and under a strict policy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from serving.page.conftest import Opener
from serving.page.fake_api import PAGE, Fakes

pytestmark = pytest.mark.slow

# Lowest ratio of any text to what is behind it (WCAG 2, relative luminance), with the text it is of.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const off = node.closest('.hidden, .skip, [aria-disabled=true], :disabled, noscript, option');
    if (!own || off || !node.getClientRects().length) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.trim()]);
  }
  return found.sort((x, y) => x[0] - y[0])[0];
}"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def fill(page: Any, fakes: Fakes) -> None:
    """A history with all that can be shown: titles long and hostile, contributions, a problem."""
    page.locator("summary", has_text="Paste ids").click()
    page.locator("#paste").fill(f"m0 m20 {'unbroken' * 20} m4")
    page.locator("#paste-form button").click()
    page.locator("#answers-note", has_text="For 4 events.").wait_for()
    page.get_by_role("button", name="Why? age").click()
    page.locator(".effect .number", has_text="points").nth(3).wait_for()


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_the_screen(opened: Opener, fakes: Fakes, width: int) -> None:
    fakes.tasks = [*fakes.tasks, "a task with a rather long name_that_has_no_place_to_break_anywhere_in_it"]
    page = opened(width=width, height=740)
    fill(page, fakes)
    assert page.evaluate(SIDEWAYS) == 0
    page.locator("summary", has_text="Load a stored user").click()
    page.locator("#search").fill("script")
    page.locator("#found li").first.wait_for()
    fakes.keys = {"k": "read"}
    page.locator("#events .remove").first.click()
    page.locator("#key-form").wait_for()
    assert page.evaluate(SIDEWAYS) == 0


def test_nothing_of_a_history_is_hidden_on_a_narrow_screen(opened: Opener, fakes: Fakes) -> None:
    page = opened(width=390, height=844)
    fill(page, fakes)
    events = page.locator("#events")
    assert events.evaluate("node => node.scrollHeight - node.clientHeight") == 0
    inner = "[...document.querySelectorAll('main *')].filter((node) => node.scrollHeight > node.clientHeight + 1"
    scrolled = f"{inner} && ['auto', 'scroll'].includes(getComputedStyle(node).overflowY)).map((node) => node.id)"
    assert page.evaluate(scrolled) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(opened: Opener, fakes: Fakes, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == (scheme == "dark")
    fill(page, fakes)
    page.locator("#search").fill("m1")
    page.locator("#found [aria-selected=true]").wait_for()
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    page.context.set_offline(True)
    page.keyboard.press("Escape")
    page.locator("#clear").click()
    page.locator("#problem").wait_for()
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, text


def test_everything_has_a_name_and_a_visible_focus(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    fill(page, fakes)
    assert [page.get_by_role(role).count() for role in ("main", "banner")] == [1, 1]
    assert [element.inner_text() for element in page.get_by_role("heading", level=2).all()] == [
        "History",
        "Answers",
        "Bundles",
    ]
    page.locator("#search").focus()
    names = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
              const at = document.activeElement;
              const label = at.labels?.[0]?.textContent ?? '';
              const shown = getComputedStyle(at);
              return [at.getAttribute('aria-label') || label || at.textContent,
                      at === document.body || shown.outlineStyle !== 'none'];
            }"""
        )
        assert name.strip()
        assert outline, name
        names.add(name.strip())
    assert {"Example history", "Clear", "Stop explaining", "Why? age", "Pin genre"} <= names
    assert "Remove: The Third Man, place 1" in names


def test_the_first_tab_leads_past_the_history(opened: Opener) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answers"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "exclude"


def test_nothing_moves_for_those_who_want_that(opened: Opener) -> None:
    duration = "getComputedStyle(document.querySelector('.card .bar')).transitionDuration"
    assert opened().evaluate(duration) == "0.15s"
    assert opened(reduced_motion="reduce").evaluate(duration) == "0s"


def test_touch_targets_are_large_enough(opened: Opener, fakes: Fakes) -> None:
    page = opened(width=360, height=740)
    fill(page, fakes)
    for button in page.locator("button:visible, summary:visible").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 24, button.inner_text()


def test_files_have_no_inline_code_nor_another_host() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)
    scripts = sorted(PAGE.glob("*.js"))
    for path in (PAGE / "index.html", PAGE / "style.css", *scripts):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]|\burl\(|@import", text), path.name
        assert len(text.splitlines()) < 300, path.name
    for path in scripts:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function",
                             path.read_text(encoding="utf-8")), path.name  # fmt: skip
    named = re.findall(r'"(assets/[^"]+)"', html)
    assert all((PAGE / name.removeprefix("assets/")).is_file() for name in named)
