"""`peterrec serve` for real: answers, load, and ends of all kinds; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from peterrec.model import UserModel
from peterrec.serving.store.open import open_store

from .in_own_process import ServiceProcess, process, write_artifacts
from .in_process import until


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def served(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    bundles = ["--bundle", f"age={artifacts / 'age'}", "--bundle", str(artifacts / "shop")]
    with process(artifacts, tmp_path_factory.mktemp("state"), *bundles) as service:
        yield service


def ages(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    tasks = (reply["answers"][0] if "answers" in reply else reply)["tasks"]
    return list(tasks["age"]["probabilities"].values())


def question(*items: str, **options: Any) -> dict[str, Any]:
    return {"requests": [{"items": items, "tasks": ["age"], **options}]}


def test_answers_are_the_models(served: ServiceProcess, artifacts: Path) -> None:
    model = UserModel.from_pretrained(artifacts / "base", "cpu")
    model.load_bundle(artifacts / "age")
    model.load_bundle(artifacts / "shop")
    histories = [["item-1", "item-2", "item-1"], [], ["item-3"] * 9, [f"item-{i % 14}" for i in range(10_000)]]
    for items in histories:
        expected = model.predict([items], "age").probabilities[0].tolist()
        assert ages(served.post("/v1/predict", question(*items))) == pytest.approx(expected, abs=1e-5)
    answer = served.post("/v1/predict", {"requests": [{"items": histories[0], "tasks": "*", "k": 3}]}).json()
    best = model.recommend(histories[:1], "shop", 3)
    assert answer["answers"][0]["tasks"]["shop"]["items"] == best.items[0]


def test_the_first_question_that_is_printed_is_about_somebody(served: ServiceProcess) -> None:
    curl, flag, body, url = served.example
    assert (curl, flag) == ("curl", "--json")
    (answer,) = served.client.post(url, json=json.loads(body)).json()["answers"]
    assert (answer["events"], answer["known_events"]) == (3, 3)
    assert list(answer["tasks"]) == ["age", "shop"]


def test_nothing_is_known_of_a_user_of_unknown_items(served: ServiceProcess, artifacts: Path) -> None:
    model = UserModel.from_pretrained(artifacts / "base", "cpu")
    model.load_bundle(artifacts / "age")
    for items in ([], ["nobody"], ["nobody", "knows"]):
        (answer,) = served.post("/v1/predict", question(*items)).json()["answers"]
        assert (answer["events"], answer["unknown_items"], answer["known_events"]) == (len(items), len(items), 0)
        expected = model.predict([[]], "age").probabilities[0]
        assert list(answer["tasks"]["age"]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_stored_user_is_answered_event_by_event(served: ServiceProcess) -> None:
    items = ["item-1", "item-5", "nobody", "item-2", "item-9", "item-3", "item-1", "item-7"]
    for i, item in enumerate(items):
        event = {"id": str(i), "user": "stored", "item": item, "timestamp": float(i)}
        assert served.post("/v1/events", {"events": [event, event]}).json()["stored"] == 1
        stored_events = ages(served.post("/v1/users/stored/predict", {"tasks": ["age"]}))
        answered_from_request = ages(served.post("/v1/predict", question(*items[: i + 1])))
        assert stored_events == pytest.approx(answered_from_request, abs=1e-5)
    assert [event["item"] for event in served.client.get("/v1/users/stored").json()["events"]] == items
    assert served.client.delete("/v1/users/stored").json() == {"erased": len(items), "complete": True}
    assert ages(served.post("/v1/users/stored/predict", {"tasks": ["age"]})) == pytest.approx(
        ages(served.post("/v1/predict", question())), abs=1e-5
    )


def test_which_events_mattered(served: ServiceProcess) -> None:
    explanation = served.post("/v1/explain", {"items": ["item-1", "nobody", "item-2"], "task": "age"}).json()
    before = served.post("/v1/predict", question("item-1", "nobody", "item-2")).json()
    age = before["answers"][0]["tasks"]["age"]
    assert (explanation["of"], explanation["value"]) == (
        age["label"],
        pytest.approx(age["probabilities"][age["label"]], abs=1e-5),
    )
    place = list(age["probabilities"]).index(age["label"])
    ends = [ages(served.post("/v1/predict", question(item)))[place] for item in ("item-2", "item-1")]
    losses = [explanation["value"] - ends[0], 0.0, explanation["value"] - ends[1]]
    assert explanation["contributions"] == pytest.approx(losses, abs=1e-5)


def test_malformed_input_does_no_harm(served: ServiceProcess) -> None:
    kind = {"Content-Type": "application/json"}
    for body in (b"{", b"[" * 100_000, b"\xff", b'{"requests": [{"items": [NaN]}]}', b"9" * 100_000, b"\x00"):
        answer = served.client.post("/v1/predict", content=body, headers=kind)
        assert answer.status_code in {400, 422}, answer.text
    assert served.post("/v1/predict", question(tasks=["income"])).status_code == 404
    assert served.client.get("/healthz").status_code == 200
    assert not served.log("failed")


def test_a_bundle_is_replaced_under_load(served: ServiceProcess) -> None:
    first = served.post("/v1/predict", question("item-1")).json()["answers"][0]["tasks"]["age"]
    versions: set[tuple[str, float]] = set()
    stop = threading.Event()
    failures: list[str] = []

    def load() -> None:
        with httpx.Client(base_url=served.address, timeout=20) as client:
            while not stop.is_set():
                answer = client.post("/v1/predict", json=question("item-1"))
                if answer.status_code != 200:
                    failures.append(answer.text)
                    return
                age = answer.json()["answers"][0]["tasks"]["age"]
                versions.add((age["version"], round(age["probabilities"]["old"], 4)))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for name, status in [("age2", 200), ("corrupt", 409), ("foreign", 409), ("age", 200), ("age2", 200), ("none", 404)]:
        answer = served.client.put("/v1/bundles/age", json={"path": name})
        assert answer.status_code in {status, 422 if name == "corrupt" else status}, answer.text
        time.sleep(0.1)
    back = served.client.post("/v1/bundles/age/rollback", json={})
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert back.json()["version"] == first["version"]
    assert len(versions) == 2, "an answer was of neither version, or only one was seen"
    assert len(dict(versions)) == 2, "a version had two answers"


@pytest.mark.slow
def test_a_thousand_clients_at_once(served: ServiceProcess) -> None:
    host, port = served.address.removeprefix("http://").split(":")
    body = json.dumps(question("item-1"))
    head = "Host: localhost\r\nConnection: close\r\n"
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    ask = f"POST /v1/predict HTTP/1.1\r\n{head}{kind}\r\n{body}"
    look = f"GET /healthz HTTP/1.1\r\n{head}\r\n"

    async def main() -> list[int]:
        clients = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(1_000)))
        for i, (_, writer) in enumerate(clients):
            writer.write((look if i % 2 else ask).encode())
        answers = await asyncio.gather(*(reader.read() for reader, _ in clients))
        for _, writer in clients:
            writer.close()
        return [int(answer.split()[1]) for answer in answers]

    statuses = asyncio.run(asyncio.wait_for(main(), 60))
    assert set(statuses) <= {200, 429}, set(statuses)
    assert statuses.count(200) >= 500
    assert served.client.get("/readyz").status_code == 200


# ---------------------------------------------------------------- ends


class Writers:
    """Clients that append events until they fail, and remember what was acknowledged."""

    def __init__(self, address: str, count: int = 4) -> None:
        self.address = address
        self.acknowledged: list[tuple[str, str, str, float]] = []
        self.statuses: set[int] = set()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _write(self, writer: int) -> None:
        with httpx.Client(base_url=self.address, timeout=20) as client, contextlib.suppress(httpx.HTTPError):
            for i in range(100_000):
                if self.stop.is_set():
                    return
                events = [
                    {"id": f"{writer}-{i}-{j}", "user": f"u{(i + j) % 7}", "item": f"item-{j}", "timestamp": i + j / 8}
                    for j in range(3)
                ]
                answer = client.post("/v1/events", json={"events": events})
                self.statuses.add(answer.status_code)
                if answer.status_code == 200:
                    self.acknowledged += [(e["user"], e["id"], e["item"], e["timestamp"]) for e in events]  # type: ignore[misc]
                elif answer.status_code == 503:
                    return

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def stored_events(service: ServiceProcess) -> set[tuple[str, str, str, float]]:
    stored: set[tuple[str, str, str, float]] = set()
    for user in (f"u{i}" for i in range(7)):
        answer = service.client.get(f"/v1/users/{user}")
        if answer.status_code == 200:
            events = answer.json()["events"]
            assert len({event["id"] for event in events}) == len(events)
            stored |= {(user, event["id"], event["item"], event["timestamp"]) for event in events}
    return stored


def end_under_load(artifacts: Path, state: Path, sig: signal.Signals) -> tuple[int, ServiceProcess, Writers]:
    """Load a bundle, append events, and send a signal meanwhile."""
    with process(artifacts, state, "--bundle", f"age={artifacts / 'age'}") as service:
        assert service.client.put("/v1/bundles/more", json={"path": "age2"}).status_code == 200
        writers = Writers(service.address)
        until(lambda: len(writers.acknowledged) > 150, 30)
        status = service.stop(sig)
        writers.join()
        assert writers.statuses <= {200, 503}
    return status, service, writers


def test_sigterm_under_load_loses_nothing(artifacts: Path, tmp_path: Path) -> None:
    status, service, writers = end_under_load(artifacts, tmp_path, signal.SIGTERM)
    assert status == 0, service.stderr_text
    assert service.log("stopped")
    assert not service.log("server"), service.stderr_text
    with contextlib.closing(open_store("sqlite", tmp_path, 10_000)) as store:
        events = {(e.user, e.event_id, e.item, e.timestamp) for i in range(7) for e in store.read(f"u{i}").events}
    assert set(writers.acknowledged) <= events
    last = [line for line in service.log("request") if line["route"] == "/v1/events" and line["status"] == 200]
    assert len(last) * 3 == len(writers.acknowledged), "an answer was cut off"


def test_sigkill_under_load_loses_nothing_acknowledged(artifacts: Path, tmp_path: Path) -> None:
    status, _, writers = end_under_load(artifacts, tmp_path, signal.SIGKILL)
    assert status == -signal.SIGKILL
    with process(artifacts, tmp_path, "--bundle", f"age={artifacts / 'age'}") as service:
        missing = set(writers.acknowledged) - stored_events(service)
        assert not missing, f"{len(missing)} of {len(writers.acknowledged)} acknowledged events are lost"
        names = [task["name"] for task in service.client.get("/v1/tasks").json()["tasks"]]
        assert names == ["age", "more"], "what an operator loaded is there again"


def fill(service: ServiceProcess, run: int) -> httpx.Response:
    events = [{"id": f"{run}-{i}", "user": f"f{i % 50}", "item": "x" * 250, "timestamp": 1.0} for i in range(500)]
    return service.post("/v1/events", {"events": events})


@pytest.mark.slow
def test_a_full_disk_under_the_store(artifacts: Path, tmp_path: Path) -> None:
    bundles = ["--bundle", f"age={artifacts / 'age'}"]
    with process(artifacts, tmp_path, *bundles, largest_file=2_500_000) as service:
        writers = Writers(service.address, 2)
        refusal = next(refusal for run in range(200) if (refusal := fill(service, run)).status_code != 200)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "store_unavailable")
        assert refusal.json()["error"]["remedy"]
        writers.stop.set()
        writers.join()
        assert service.client.get("/healthz").status_code == 200
        assert service.post("/v1/predict", question("item-1")).status_code == 200
        assert set(writers.acknowledged) <= stored_events(service)
        assert not service.log("failed"), service.stderr_text
        assert "xxx" not in service.stderr_text
    with process(artifacts, tmp_path, *bundles) as service:
        assert set(writers.acknowledged) <= stored_events(service)
        assert fill(service, 1_000).status_code == 200
        assert service.client.get("/readyz").status_code == 200


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(artifacts: Path, tmp_path: Path) -> None:
    with process(artifacts, tmp_path / "state", "-s", "limits.body_seconds=30") as service:
        host, port = service.address.removeprefix("http://").split(":")

        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            slow.sendall(b"Content-Length: 50\r\n\r\n{")
            time.sleep(0.3)
            service.process.send_signal(signal.SIGTERM)
            until(lambda: bool(service.log("stopping")))
            began = time.monotonic()
            assert service.stop(signal.SIGTERM) == 128 + signal.SIGTERM
            assert time.monotonic() - began < 15  # a request has 30 s to arrive


@pytest.mark.slow
def test_logs_are_json_and_name_nobody(artifacts: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(json.dumps([{"name": "web", "key": "k" * 20, "scopes": ["read", "write"]}]))
    keys.chmod(0o600)
    with process(artifacts, tmp_path / "state", "--keys", str(keys), "--host", "0.0.0.0") as service:
        address = service.address.replace("0.0.0.0", "127.0.0.1")
        key = {"Authorization": f"Bearer {'k' * 20}"}
        with httpx.Client(base_url=address, headers=key) as client:
            event = {"id": "id-secret", "user": "user-secret", "item": "item-secret"}
            assert client.post("/v1/events", json={"events": [event]}).status_code == 200
            assert client.get("/v1/users/user-secret").status_code == 200
            assert client.get("/v1/bundles").status_code == 403
        assert httpx.get(f"{address}/v1/tasks").status_code == 401
        assert service.stop(signal.SIGINT) == 0
    assert {json.loads(line)["event"] for line in service.lines} >= {"started", "request", "stopping", "stopped"}
    assert "secret" not in service.stderr_text
    assert "kkk" not in service.stderr_text
    assert {line["key"] for line in service.log("request")} == {"web", ""}
