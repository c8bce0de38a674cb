"""Histories on the page: their order, where they come from, and that they stay."""

from __future__ import annotations

import pytest

from serving.page.conftest import Opener
from serving.page.fake_api import FILMS, HUGE, Fakes
from serving.page.steps import history, pick, settled

pytestmark = pytest.mark.slow


def test_history_is_ordered_moved_cleared_and_outlives_a_reload(opened: Opener) -> None:
    page = opened()
    for text in ("fargo", "alien", "vertigo"):
        pick(page, text)
    up = page.get_by_role("button", name="Move up: Vertigo, place 3")
    up.press("Enter")
    page.locator("#live", has_text="Moved Vertigo to place 2 of 3").wait_for()
    assert history(page) == ["Fargo", "Vertigo", "Alien"]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Move up: Vertigo, place 2"
    page.reload()
    settled(page, 3)
    assert history(page) == ["Fargo", "Vertigo", "Alien"]
    assert page.url.count("/") == 3
    assert "#" not in page.url  # nothing of a user in the address
    page.locator("#clear").press("Enter")
    settled(page, 0)
    assert history(page) == []
    page.locator("#example").press("Enter")
    settled(page, 5)


def test_ids_are_pasted_and_those_that_are_not_known_are_named(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    page.locator("summary", has_text="Paste ids").click()
    page.locator("#paste").fill("m1, nowhere,m2 ,")
    page.locator("#paste-form button").click()
    settled(page, 3)
    page.locator("#answers-note", has_text="1 event not in the catalogue, skipped").wait_for()
    page.locator("#events li", has_text="not in the catalogue").wait_for()
    assert page.locator("#events li", has_text="not in the catalogue").all_inner_texts()[0].count("nowhere") == 1
    assert fakes.requests[-1]["requests"][0]["items"] == ["m1", "nowhere", "m2"]
    page.locator("#clear").click()
    page.locator("#paste").fill("x without title\nm1\r\n")
    page.locator("#paste-form button").click()
    settled(page, 2)
    assert history(page) == ["x without title", FILMS[1]]


def test_numbers_beyond_what_a_float_holds_stay_whole(opened: Opener, fakes: Fakes) -> None:
    fakes.items = [7, HUGE]
    fakes.titles = {"7": "Seven"}
    page = opened()
    page.locator("summary", has_text="Paste ids").click()
    page.locator("#paste").fill(f"{HUGE} 7")
    page.locator("#paste-form button").click()
    settled(page, 2)
    assert fakes.requests[-1]["requests"][0]["items"] == [HUGE, 7]
    assert history(page) == [str(HUGE), "Seven"]
    page.reload()
    settled(page, 2)
    assert fakes.requests[-1]["requests"][0]["items"] == [HUGE, 7]
    assert "skipped" not in page.locator("#answers-note").inner_text()


def test_a_stored_user_is_loaded(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    page.locator("summary", has_text="Load a stored user").click()
    page.locator("#user").fill("nobody")
    page.locator("#user").press("Enter")
    page.locator("#user-status", has_text="Nothing is known").wait_for()
    page.locator("#user").fill("ann/1")
    page.locator("#user").press("Enter")
    settled(page, 3)
    assert history(page) == [FILMS[3], FILMS[7], "gone"]
    assert page.locator("#events li", has_text="not in the catalogue").count() == 1
    fakes.users["long"] = [f"m{i % 20}" for i in range(250)]
    page.locator("#user").fill("long")
    page.locator("#user").press("Enter")
    settled(page, 250)
    assert page.locator("#events li").count() == 100  # the newest; the rest when asked for
    assert page.locator("#events .place").first.inner_text() == "151"
    page.locator("#earlier", has_text="Show 150 earlier events").click()
    assert page.locator("#events li").count() == 250
