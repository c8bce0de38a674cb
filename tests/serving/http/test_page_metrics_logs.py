"""The page, methods, metrics, logs, and our own faults."""

from __future__ import annotations

from .in_process import FakeSite, until

EVENT = {"id": "e", "user": "u", "item": "item-1", "timestamp": 1.0}


def test_the_page_and_its_files(site: FakeSite) -> None:
    page = site.ask("GET", "/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    file = site.ask("GET", "/assets/app.js")
    assert (file.text, file.headers["content-type"]) == ("1", "text/javascript; charset=utf-8")
    assert file.headers["cache-control"] == "no-cache"
    unchanged = site.ask("GET", "/assets/app.js", headers={"If-None-Match": file.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for name in ("none.js", "..%2F..%2Ffakes.py", "%2e%2e", "index.html%00"):
        assert site.ask("GET", f"/assets/{name}").status_code == 404, name


def test_methods_that_are_not_there(site: FakeSite) -> None:
    wrong = site.ask("PATCH", "/v1/users/u", json={})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE, GET, HEAD")
    assert wrong.json()["error"]["code"] == "method_not_allowed"
    assert site.ask("OPTIONS", "/v1/predict").headers["allow"] == "POST"
    assert site.ask("GET", "/v2").json()["error"]["code"] == "not_found"
    head, get = site.ask("HEAD", "/v1/tasks"), site.ask("GET", "/v1/tasks")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert site.ask("PUT", "/v1/users/u/predict").headers["allow"] == "POST"
    for path in ("/docs", "/redoc", "/v1/tasks/", "/v1/users/a/b", "/v1/users/"):
        assert site.ask("GET", path).status_code == 404


def test_metrics_tell_what_happened(site: FakeSite) -> None:
    site.ask("POST", "/v1/events", json={"events": [EVENT, EVENT]})
    site.ask("POST", "/v1/predict", json={"requests": [{"items": []}, {"items": []}]})
    site.ask("GET", "/v1/users/someone")
    site.ask("GET", "/secret-path-of-someone")
    site.ask("GET", "/readyz")
    text = site.ask("GET", "/metrics").text
    for line in (
        'peterrec_requests_total{method="POST",route="/v1/predict",status="200"} 1.0',
        'peterrec_requests_total{method="GET",route="/v1/users/{user}",status="404"} 1.0',
        'peterrec_requests_total{method="GET",route="other",status="404"} 1.0',
        'peterrec_batch_rows_sum{queue="answers"} 4.0',
        'peterrec_batch_rows_count{queue="answers"} 1.0',
        "peterrec_events_stored_total 1.0",
        "peterrec_events_duplicate_total 1.0",
        "peterrec_users_states 3.0",
        "peterrec_ready 1.0",
        'peterrec_queue_rows{queue="answers"} 0.0',
        'peterrec_bundle_info{active="true",kind="classification",name="age",version="v1"} 1.0',
    ):
        assert line in text.splitlines(), line
    assert "someone" not in text


def test_metrics_count_what_bundles_see_and_say_beside_their_valid_users(site: FakeSite) -> None:
    requests = [{"items": ["item-1", "item-2", "nothing"]}, {"items": ["item-3"]}, {"items": []}]
    site.ask("POST", "/v1/predict", json={"requests": requests})
    lines = site.ask("GET", "/metrics").text.splitlines()
    for line in (
        'peterrec_asked_users_total{known="some"} 2.0',
        'peterrec_asked_users_total{known="none"} 1.0',
        'peterrec_asked_events_total{known="known"} 3.0',
        'peterrec_asked_events_total{known="unknown"} 1.0',
        'peterrec_history_events_bucket{le="1.0"} 2.0',
        "peterrec_history_events_count 3.0",
        'peterrec_answered_total{bin="young",quantity="class",task="age"} 2.0',
        'peterrec_answered_total{bin="below 0.5",quantity="p(old)",task="age"} 2.0',
        'peterrec_expected_share{bin="young",quantity="class",task="age"} 0.6',
        'peterrec_expected_share{bin="0.5 and above",quantity="p(old)",task="age"} 0.3',
    ):
        assert line in lines, line
    assert not [line for line in lines if 'task="shop"' in line or 'quantity="known events"' in line]


def test_logs_have_no_users_items_or_keys(locked: FakeSite) -> None:
    for key in ("reader-key", "writer-key", "wrong-key"):
        headers = {"Authorization": f"Bearer {key}"}
        locked.ask("GET", "/v1/users/user-secret?x=query-secret", headers=headers)
        body = {"events": [{"id": "id-secret", "user": "user-secret", "item": "item-secret", "timestamp": 1.0}]}
        locked.ask("POST", "/v1/events", json=body, headers=headers)
        locked.ask("POST", "/v1/predict", json={"requests": [{"items": ["poison"]}]}, headers=headers)
        locked.ask("POST", "/v1/predict", content=b'{"item-secret', headers=headers)
    assert len([line for line in locked.log() if line["event"] == "request"]) == 12
    text = locked.lines.getvalue()
    for secret in ("secret", "-key", "poison"):
        assert secret not in text
    line = locked.log()[0]
    assert set(line) == {"time", "level", "event", "request_id", "method", "route", "status", "ms", "key"}
    assert (line["route"], line["key"], line["status"]) == ("/v1/users/{user}", "reader", 404)


def test_our_own_fault_is_told_as_such_and_only_to_who_met_it(site: FakeSite) -> None:
    site.users.may_run.clear()
    blocking = site.start("POST", "/v1/predict", json={"requests": [{"items": []}]})
    until(lambda: len(site.users.runs) == 1)
    bad = site.start("POST", "/v1/predict", json={"requests": [{"items": ["poison"]}]})
    good = site.start("POST", "/v1/predict", json={"requests": [{"items": ["item-1"]}]})
    until(lambda: site.service._answers.queued_rows == 4)
    site.users.may_run.set()
    assert blocking.result(10).status_code == 200
    assert good.result(10).status_code == 200
    answer = bad.result(10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    failed = [line for line in site.log() if line["event"] == "failed"]
    assert [line["error"] for line in failed] == ["ValueError"]
    assert failed[0]["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in site.lines.getvalue() + answer.text
