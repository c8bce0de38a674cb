"""The page when the service says no, or nothing: what is said, that the history stays, and how it goes on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from serving.page.conftest import Opener
from serving.page.fake_api import Fakes, Fault, refusal

pytestmark = pytest.mark.slow

PREDICT = "/v1/predict"


def add(page: Any, text: str) -> None:
    page.locator("#search").fill(text)
    page.locator("#found [aria-selected=true]", has_text=text).wait_for()
    page.locator("#search").press("Enter")


def assert_alert(page: Any, text: str) -> None:
    page.locator("#problem", has_text=text).wait_for()


def answered(page: Any, words: str) -> None:
    page.locator("#answers-note", has_text=words).wait_for()
    assert page.locator("#problem").is_hidden()


REFUSALS = [
    (
        refusal(422, "history has 10,001 items", "Send fewer"),
        "History has 10,001 items. Send fewer. The history is kept.",
    ),
    (refusal(500, "internal error", **{"X-Request-ID": "r-17"}), "The service failed. Internal error."),
    (refusal(500, "internal error", **{"X-Request-ID": "r-17"}), "as request r-17."),
    (refusal(504, "no answer in 10 s"), "The answer took too long. No answer in 10 s."),
    (refusal(503, "stopping"), "The service is not ready. Stopping. The history is kept. Asks again in 5 s."),
    (refusal(403, "the key has no scope read"), "This key may not do that. The key has no scope read."),
    (Fault(502, "<html>Bad gateway</html>"), "The service failed. The service answered with status 502."),
    (Fault(200, "<html>Welcome</html>"), "The answer is not JSON. Is a proxy answering for the service?"),
]


def test_refusals_are_told_and_the_history_stays(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    add(page, "Fargo")
    answered(page, "For 1 event.")
    for fault, words in REFUSALS:
        fakes.faults[PREDICT] = fault
        page.locator("#example").press("Enter")
        assert_alert(page, words)
        assert page.locator("#events li").count() == 5
        assert page.locator("#answers-note").inner_text() == "Not up to date: these are for 1 event."
    fakes.faults.clear()
    page.locator("#retry").press("Enter")
    answered(page, "For 5 events.")


def test_a_busy_service_is_asked_again_when_it_says(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    fakes.faults[PREDICT] = refusal(429, "1,024 rows are waiting", **{"Retry-After": "1"})
    add(page, "Fargo")
    assert_alert(page, "The service is busy. 1,024 rows are waiting. The history is kept. Asks again in 1 s.")
    requests_before = len(fakes.requests)
    fakes.faults.clear()
    answered(page, "For 1 event.")  # by itself
    assert len(fakes.requests) == requests_before + 1
    fakes.faults[PREDICT] = refusal(429, "later", **{"Retry-After": "3600"})
    add(page, "Alien")
    assert_alert(page, "Later.")
    assert "Asks again" not in page.locator("#problem").inner_text()  # nobody waits an hour for that


def test_a_lost_network_keeps_the_history_and_comes_back(opened: Opener) -> None:
    page = opened()
    add(page, "Fargo")
    answered(page, "For 1 event.")
    page.context.set_offline(True)
    page.locator("#events .remove").click()
    assert_alert(page, "The service cannot be reached. Check the connection, and that it runs. The history is kept.")
    assert page.locator(".card").count() == 3
    page.context.set_offline(False)  # the browser says so, and the page asks
    answered(page, "For somebody new")


def test_a_key_is_asked_for_kept_in_the_tab_and_changed(opened: Opener, fakes: Fakes) -> None:
    fakes.keys = {"reader": "read", "boss": "read operate"}
    page = opened(wait="#key-form")
    page.locator("#key-why", has_text="only with a key").wait_for()
    key = page.get_by_label("API key")
    assert key.get_attribute("type") == "password"
    assert key.evaluate("node => node === document.activeElement")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.locator("#key-why", has_text="The key was not accepted. Enter another one.").wait_for()
    key.fill("schlüssel \u2192")  # no header can carry it
    key.press("Enter")
    page.locator("#key-why", has_text="only letters, digits and signs").wait_for()
    key.fill("reader")
    key.press("Enter")
    page.locator(".card").first.wait_for()
    assert page.locator("#key-form").is_hidden()
    assert page.locator("#search").evaluate("node => node === document.activeElement")
    page.locator("#bundles", has_text="Answers with").wait_for()
    assert "Parameters" not in page.locator("#bundles").inner_text()  # a reader may not know
    assert key.input_value() == ""
    add(page, "Fargo")
    answered(page, "For 1 event.")
    page.reload()
    answered(page, "For 1 event.")
    page.locator("#change-key").click()
    key.fill("boss")
    key.press("Enter")
    page.locator("#bundles", has_text="Parameters").wait_for()
    fakes.keys = {"other": "read"}
    page.locator("#search").fill("alien")
    page.locator("#key-why", has_text="The key was not accepted").wait_for()
    page.locator("#forget-key").click()
    page.locator("#key-why", has_text="only with a key").wait_for()
    assert page.evaluate("sessionStorage.getItem('peterrec.key')") is None
    key.fill("other")
    key.press("Enter")
    answered(page, "For 1 event.")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_the_latest_question_wins(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    held = threading.Event()
    fakes.held = [held]
    add(page, "Fargo")
    page.locator("#answers-note", has_text="Asking").wait_for()
    add(page, "Alien")
    answered(page, "For 2 events.")
    shown = page.locator("#cards").inner_text()
    held.set()  # now the first is answered too
    page.wait_for_timeout(300)
    assert page.locator("#answers-note").inner_text() == "For 2 events."
    assert page.locator("#cards").inner_text() == shown


def test_a_service_that_hangs_is_told_and_old_answers_are_marked(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    add(page, "Fargo")
    answered(page, "For 1 event.")
    held = [threading.Event(), threading.Event()]
    fakes.held = list(held)
    add(page, "Alien")
    assert_alert(page, "The service does not answer. Nothing came for 4 s; the page still waits. The history is kept.")
    assert page.locator("#answers-note").inner_text() == "Not up to date: these are for 1 event."
    assert page.locator("#cards.stale").count() == 1
    page.locator("#retry").click()  # it still hangs
    assert_alert(page, "The service does not answer.")
    held[1].set()
    answered(page, "For 2 events.")
    assert page.locator("#cards.stale").count() == 0
    held[0].set()


def test_a_service_that_hangs_from_the_start_is_told(opened: Opener, fakes: Fakes) -> None:
    fakes.hanging["/v1/tasks"] = threading.Event()
    page = opened(wait="#problem")
    assert_alert(page, "The service does not answer.")
    fakes.hanging["/v1/tasks"].set()
    answered(page, "For somebody new")


def test_a_search_that_hangs_is_told_until_it_is_answered(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    page.locator("#search").fill("no such film")
    page.locator("#search-status", has_text="No item found").wait_for()
    fakes.hanging["/v1/items"] = threading.Event()
    page.locator("#search").fill("alien")
    assert_alert(page, "The service does not answer.")
    assert page.locator("#search-status").inner_text() == "The search has no answer yet"  # not that of "no such film"
    fakes.hanging["/v1/items"].set()
    page.locator("#search-status", has_text="1 item").wait_for()
    page.locator("#problem").wait_for(state="hidden")
    fakes.hanging["/v1/items"].clear()
    page.locator("#search").fill("fargo")
    page.locator("#search-status", has_text="The search has no answer yet").wait_for()
    page.locator("#search").blur()  # nobody waits for it any more
    page.wait_for_function("document.getElementById('search-status').textContent === ''")
    fakes.hanging["/v1/items"].set()


def test_what_is_no_number_is_not_shown_as_one(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    fakes.broken_class = "25-34"
    add(page, "Fargo")
    answered(page, "For 1 event.")
    row = page.locator(".card[data-task=age] .classes tbody tr", has_text="25-34")
    assert row.locator(".number").all_inner_texts() == ["\u2013", "\u2013"]
    assert row.locator(".delta").all_inner_texts() == ["", ""]
    assert "NaN" not in page.locator("#cards").inner_text()


def test_cards_and_bars_stay_the_same_elements(opened: Opener) -> None:
    page = opened()
    page.evaluate(
        "document.querySelectorAll('.card, .card[data-task=age] .bar').forEach((one) => { one.mine = true; })"
    )
    add(page, "Fargo")
    answered(page, "For 1 event.")
    all_mine = "[...document.querySelectorAll('.card, .card[data-task=age] .bar')].every((one) => one.mine)"
    assert page.evaluate(all_mine)  # made anew they would flicker, and lose the focus


def test_what_cannot_be_explained_is_told_beside_the_history(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    add(page, "Fargo")
    answered(page, "For 1 event.")
    fakes.faults["/v1/explain"] = refusal(422, "201 events, at most 200 can be explained", "Send fewer.")
    page.get_by_role("button", name="Why? age").click()
    page.locator("#why-text", has_text="age cannot be explained now. 201 events").wait_for()
    assert page.locator(".effect").first.is_hidden()
    fakes.faults.clear()
    add(page, "Alien")
    page.locator(".effect .number", has_text="points").nth(1).wait_for()


def test_without_titles_ids_are_shown(opened: Opener, fakes: Fakes) -> None:
    fakes.faults["/v1/items/titles"] = refusal(503, "no titles now")
    page = opened()
    assert page.locator(".ranking .name").first.inner_text().startswith("m")
    fakes.faults["/v1/items"] = refusal(503, "the search is not ready")
    page.locator("#search").fill("fargo")
    page.locator("#search-status", has_text="the search is not ready").wait_for()


def test_a_service_that_starts_late_is_waited_for(opened: Opener, fakes: Fakes) -> None:
    fakes.faults["/v1/tasks"] = refusal(503, "starting", **{"Retry-After": "1"})
    page = opened(wait="#problem")
    assert_alert(page, "The service is not ready. Starting.")
    fakes.faults.clear()
    answered(page, "For somebody new")
