"""Steps of a person on the page, and waiting for their effect."""

from __future__ import annotations

from typing import Any


def pick(page: Any, text: str) -> None:
    """Search and choose the first item found, by keyboard only."""
    before = page.locator("#events li").count()
    page.locator("#search").focus()
    page.keyboard.insert_text(text)  # at once: by letter, on a busy machine, Enter may meet the items for a part of it
    page.locator("#found [aria-selected=true]").wait_for()
    page.locator("#search-status", has_text="item").wait_for()
    page.keyboard.press("Enter")
    page.locator("#events li").nth(before).wait_for()


def settled(page: Any, events: int) -> None:
    """Wait until the answers are those to a history of so many events."""
    words = "For somebody new" if events == 0 else f"For {events} event{'s' if events > 1 else ''}."
    page.locator("#answers-note", has_text=words).wait_for()


def shares(page: Any, task: str, side: str) -> dict[str, float]:
    """Numbers of a classification task as they are shown."""
    rows = page.locator(f".card[data-task='{task}'] .classes tbody tr").all()
    cell = {"with": "td:nth-of-type(1)", "without": "td:nth-of-type(2)"}[side]
    return {
        row.locator("th").inner_text(): float(row.locator(f"{cell} .number").inner_text().rstrip("%")) for row in rows
    }


def history(page: Any) -> list[str]:
    return page.locator("#events .name").all_inner_texts()
