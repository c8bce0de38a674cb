"""The page in a real browser, on a made-up service: what it shows, and that keys are enough to use it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from serving.page.conftest import Opener
from serving.page.fake_api import AGES, FILMS, HOSTILE, Fakes
from serving.page.steps import history, pick, settled, shares

pytestmark = pytest.mark.slow


def expected(fakes: Fakes, task: str, items: list[Any], patched: bool) -> dict[str, float]:
    return {
        name: pytest.approx(100 * share, abs=0.051)
        for name, share in fakes.answer(task, items, {"patched": patched})["probabilities"].items()
    }


def test_answers_follow_the_history_by_keyboard_alone(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    settled(page, 0)
    assert shares(page, "age", "with") == expected(fakes, "age", [], True)
    pick(page, "third")
    settled(page, 1)
    pick(page, "SOLARIS")
    settled(page, 2)
    assert history(page) == ["The Third Man", "Solaris"]
    assert shares(page, "age", "with") == expected(fakes, "age", ["m0", "m8"], True)
    assert shares(page, "age", "without") == expected(fakes, "age", ["m0", "m8"], False)
    assert list(shares(page, "age", "with")) == AGES  # their own order where they are few
    first_event, two_events = (fakes.answer("age", items, {})["probabilities"] for items in (["m0"], ["m0", "m8"]))
    deltas = page.locator(".card[data-task=age] .delta").all_inner_texts()
    shown = [float(text.replace("\u2212", "-")) for text in deltas[::2]]
    assert shown == [pytest.approx(100 * (two_events[name] - first_event[name]), abs=0.051) for name in AGES]
    live = page.locator("#live").inner_text()
    assert live.startswith("Added Solaris. age: ")
    page.keyboard.press("Escape")
    page.locator("#events .remove").first.focus()
    page.keyboard.press("Enter")
    settled(page, 1)
    assert history(page) == ["Solaris"]
    assert page.locator("#events .remove").evaluate("node => node === document.activeElement")


def test_search_box_is_a_combobox(opened: Opener) -> None:
    page = opened()
    box = page.get_by_role("combobox", name="Find an item by title or id")
    box.press("ArrowDown")  # nothing typed: the most frequent
    page.locator("#found li").nth(19).wait_for()
    assert box.get_attribute("aria-expanded") == "true"
    box.press("ArrowUp")
    assert page.locator("#found [aria-selected=true]").inner_text().startswith(FILMS[19])
    box.press("ArrowDown")
    active = box.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").inner_text().startswith(FILMS[0])
    box.press("Escape")
    assert box.get_attribute("aria-expanded") == "false"
    assert page.locator("#found").is_hidden()
    box.fill("no such film")
    page.locator("#search-status", has_text="No item found").wait_for()
    box.press("Escape")
    assert box.input_value() == ""
    box.fill("vertigo")
    page.locator("#found li", has_text="Vertigo").wait_for()
    box.fill("alien")
    box.press("Enter")  # at once: what is listed still answers the text before
    if page.locator("#events li").count() == 0:
        page.locator("#found li", has_text="Alien").click()
    settled(page, 1)
    assert history(page) == ["Alien"]
    assert box.input_value() == ""


def test_many_classes_are_the_most_probable_and_others(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    pick(page, "alien")
    settled(page, 1)
    shown = shares(page, "genre", "with")
    probabilities = fakes.answer("genre", ["m9"], {})["probabilities"]
    best = sorted(probabilities, key=lambda name: -probabilities[name])
    assert list(shown) == [*best[:5], "4 others"]
    assert sum(shown.values()) == pytest.approx(100, abs=0.4)
    assert shares(page, "genre", "without")["4 others"] == pytest.approx(
        100 * sum(fakes.answer("genre", ["m9"], {"patched": False})["probabilities"][name] for name in best[5:]),
        abs=0.06,
    )


def test_rankings_mark_what_the_patch_moved(opened: Opener, fakes: Fakes) -> None:
    options = {"exclude_seen": False, "k": 20}
    item = next(film for film in fakes.titles if film in fakes.answer("next film", [film], options)["items"][:5])
    page = opened()
    pick(page, fakes.titles[item])
    settled(page, 1)
    plain = fakes.answer("next film", [item], {"patched": False, "k": 5})["items"]
    patched = fakes.answer("next film", [item], {"k": 5})["items"]
    card = page.locator(".card[data-task='next film']")
    titles = [fakes.titles.get(film, film) for film in patched]
    assert card.locator(".with .name").all_inner_texts() == titles
    assert card.locator(".without .name").all_inner_texts() == [fakes.titles.get(film, film) for film in plain]
    for row, film, place in zip(card.locator(".with li").all(), patched, range(5), strict=True):
        before = plain.index(film) if film in plain else None
        mark = row.locator(".mark").inner_text() if row.locator(".mark").count() else ""
        wanted = "new" if before is None else f"\u25b2{before - place}" if before > place else ""
        wanted = f"\u25bc{place - before}" if before is not None and before < place else wanted
        assert mark.startswith(wanted)
        assert bool(mark) == bool(wanted)
    assert any(film not in plain or plain.index(film) != i for i, film in enumerate(patched))  # else it shows nothing
    page.locator("#count").select_option("20")
    card.locator(".with li").nth(19).wait_for()
    assert fakes.requests[-1]["requests"][0]["k"] == 20
    assert fakes.requests[-1]["requests"][0]["exclude_seen"] is None, (
        "until somebody says otherwise, the bundle decides"
    )
    assert fakes.titles[item] not in card.locator(".with .name").all_inner_texts()
    page.locator("#exclude").select_option("false")
    card.locator(".with .name", has_text=fakes.titles[item]).wait_for()


def test_why_shows_what_each_event_adds(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    why_button = page.get_by_role("button", name="Why? age")
    why_button.press("Enter")
    page.locator("#why-text", has_text="Add events").wait_for()
    for text in ("fargo", "ran", "alien"):
        pick(page, text)
    settled(page, 3)
    page.locator("#why-text", has_text="What each event adds to age").wait_for()
    page.locator(".effect .number", has_text="points").nth(2).wait_for()
    items = fakes.requests[-1]["requests"][0]["items"]
    explanation = fakes.explain({"items": items, "task": "age"})
    texts = page.locator("#events .effect .number").all_inner_texts()
    numbers = [float(text.removesuffix(" points").replace("\u2212", "-")) for text in texts]
    assert numbers == [pytest.approx(100 * share, abs=0.051) for share in explanation["contributions"]]
    assert explanation["of"] in page.locator("#why-text").inner_text()
    signs = [bar.get_attribute("class").split()[-1] for bar in page.locator("#events .effect .bar").all()]
    assert signs == ["minus" if share < 0 else "plus" for share in explanation["contributions"]]
    assert {"minus", "plus"} == set(signs)  # else the picture of one kind is not seen here
    assert why_button.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Why? next film").press("Enter")
    page.locator("#why-text", has_text="adds to next film").wait_for()
    assert why_button.get_attribute("aria-pressed") == "false"
    page.locator("#why-stop").press("Enter")
    assert page.locator("#events .effect").first.is_hidden()


def test_titles_are_text_whatever_they_hold(opened: Opener) -> None:
    page = opened()
    pick(page, "script")
    settled(page, 1)
    assert history(page) == [HOSTILE]
    page.locator("#exclude").select_option("false")
    page.locator("#count").select_option("20")
    page.locator(".ranking .name", has_text="<script>").first.wait_for()
    page.get_by_role("button", name="Why? next film").click()
    page.locator("#why-text", has_text="adds to").wait_for()
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("main img, main script").count() == 0


def test_bundles_latency_and_a_bundle_replaced(opened: Opener, fakes: Fakes) -> None:
    page = opened()
    table = page.locator("#bundles")
    table.locator("td", has_text="approximate, recall 0.973").wait_for()
    text = table.inner_text()
    shown = ("3f9a1c20", "00c0ffee", "earlier", "0bad0bad", "withdrawn", "patch", "18,500", "accuracy 0.412")
    assert all(word in text for word in shown)
    pick(page, "fargo")
    settled(page, 1)
    assert re.fullmatch(
        r"Last [\d.]+ ms, median [\d.]+, p95 [\d.]+ \(2 questions\)", page.locator("#latency").inner_text().strip()
    )
    points = page.locator("#latency polyline").get_attribute("points").split()
    assert len(points) == 2
    fakes.version = "77777777"
    pick(page, "alien")
    page.locator(".card[data-task=age] .version", has_text="77777777, new since the last change").wait_for()
    table.locator("th", has_text="age").first.wait_for()
    table.locator("td", has_text="77777777").first.wait_for()
    assert set(page.locator(".card[data-task=age] .delta").all_inner_texts()) == {""}  # another version, another answer


def test_a_bundle_without_a_patch_is_named(opened: Opener, fakes: Fakes) -> None:
    fakes.without_patch = {"age", "next film"}
    page = opened()
    pick(page, "fargo")
    settled(page, 1)
    cards = page.locator(".card").all()
    notes = {card.get_attribute("data-task"): card.locator(".version").inner_text() for card in cards}
    text = "Version 3f9a1c20, the same with and without patch"
    assert notes == {"age": text, "genre": "Version 3f9a1c20", "next film": text}


def test_many_tasks_are_filtered_and_pinned(opened: Opener, fakes: Fakes) -> None:
    fakes.tasks = [f"task {i:02d}" for i in range(50)]
    page = opened()
    page.locator(".card").nth(49).wait_for()
    page.get_by_role("button", name="Pin task 27").press("Enter")
    assert page.locator(".card h3").first.inner_text() == "task 27"
    assert page.evaluate("document.activeElement.textContent") == "Pinned task 27"
    page.get_by_label("Show tasks with").fill("9")
    shown = page.locator(".card h3").all_inner_texts()
    assert shown == ["task 27", "task 09", "task 19", "task 29", "task 39", "task 49"]
    assert page.locator("#filter-note").inner_text() == "44 tasks not shown"
    page.reload()
    page.locator(".card").nth(49).wait_for()
    assert page.locator(".card h3").first.inner_text() == "task 27"


def test_a_bundle_that_could_not_be_loaded_is_told(opened: Opener, fakes: Fakes) -> None:
    fakes.failed = [{"name": "income", "version": "0bad", "message": "is damaged", "remedy": "Mend it.", "path": "x"}]
    page = opened()
    page.locator("#service-note", has_text="income could not be loaded: is damaged.").wait_for()


def test_without_bundles_it_says_so(opened: Opener, fakes: Fakes) -> None:
    fakes.tasks = []
    page = opened(wait="#service-note")
    page.locator("#service-note", has_text="No bundle is loaded").wait_for()
    page.locator("#answers-note", has_text="nothing to answer").wait_for()
    fakes.tasks = ["age"]
    pick(page, "fargo")
    settled(page, 1)
    assert shares(page, "age", "with") == expected(fakes, "age", ["m16"], True)
