"""The service as the page sees it: the same shapes, made-up numbers, and faults on demand."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import peterrec.serving

PAGE = Path(peterrec.serving.__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
HUGE = 2**60 + 1

AGES = ["under 25", "25-34", "35-49", "50 and over"]
GENRES = ["rock", "jazz", "folk", "classical", "metal", "pop", "hip hop", "electronic", "blues"]
FILMS = [
    "The Third Man", "Rear Window", "Seven Samurai", "La Strada", "Tokyo Story", "The Apartment", "Vertigo",
    "Playtime", "Solaris", "Alien", "Stalker", "Paris, Texas", "Ran", "Wings of Desire", "My Neighbour Totoro",
    "Chungking Express", "Fargo", "Spirited Away", "In the Mood for Love", "Amélie", HOSTILE,
]  # fmt: skip


def refusal(status: int, message: str, remedy: str = "", **headers: str) -> Fault:
    return Fault(status, {"error": {"code": f"code_{status}", "message": message, "remedy": remedy}}, headers)


@dataclass
class Fault:
    """The fault that a path answers with."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Fakes:
    """Answers, and what may be set to change them."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}  # key -> scopes; none: everybody may do everything
        self.faults: dict[str, Fault] = {}
        self.held: list[threading.Event] = []  # what the next POST /v1/predict wait for, in turn
        self.hanging: dict[str, threading.Event] = {}  # path -> what its answers wait for
        self.broken_class: str | None = None  # whose probability is null
        self.failed: list[dict[str, str]] = []
        self.requests: list[dict[str, Any]] = []
        self.version = "3f9a1c20"
        self.items: list[Any] = [*(f"m{i}" for i in range(len(FILMS))), "x without title"]
        self.titles = {f"m{i}": title for i, title in enumerate(FILMS)}
        self.users = {"ann/1": ["m3", "m7", "gone"]}
        self.tasks = ["age", "genre", "next film"]
        self.without_patch: set[str] = set()

    def weight(self, item: Any, name: str, salt: str) -> float:
        # no hash(): it differs from one process to the next
        text = f"{item}|{name}|{salt}".encode()
        return (sum((i + 7) * byte * 2654435761 % 1009 for i, byte in enumerate(text)) % 1009) / 1009 - 0.5

    def scores(self, items: list[Any], names: list[Any], patched: bool) -> list[float]:
        known_items = [item for item in items if item in self.items]
        plain_scores = [
            self.weight(n, n, "prior") + sum(self.weight(i, n, "plain") for i in known_items) for n in names
        ]
        if patched:
            plain_scores = [
                s + 1.5 * sum(self.weight(i, n, "patch") for i in known_items)
                for s, n in zip(plain_scores, names, strict=True)
            ]
        return plain_scores

    def classes(self, task: str) -> list[str]:
        return GENRES if task == "genre" else AGES

    def answer(self, task: str, items: list[Any], request: dict[str, Any]) -> dict[str, Any]:
        patched = request.get("patched", True) and task not in self.without_patch
        if task == "next film":
            excluded = items if request.get("exclude_seen") in (True, None) else []
            names = [item for item in self.items if item not in excluded]
            ranked = sorted(zip(self.scores(items, names, patched), names, strict=True), key=lambda pair: -pair[0])
            best = ranked[: request.get("k", 10)]
            return {
                "kind": "ranking", "version": self.version,
                "items": [item for _, item in best], "scores": [score for score, _ in best],
            }  # fmt: skip
        names = self.classes(task)
        powers = [math.exp(score) for score in self.scores([task, *items], names, patched)]
        shares = {name: power / sum(powers) for name, power in zip(names, powers, strict=True)}
        label = max(shares, key=lambda name: shares[name])
        reply = shares | {name: None for name in shares if name == self.broken_class}
        return {"kind": "classification", "version": self.version, "label": label, "probabilities": reply}

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        answers = []
        for request in body["requests"]:
            items = request["items"]
            tasks = {task: self.answer(task, items, request) for task in self.tasks}
            unknown = sum(item not in self.items for item in items)
            counts = {"events": len(items), "unknown_items": unknown, "known_events": len(items) - unknown}
            answers.append({"tasks": tasks} | counts)
        return {"answers": answers}

    def explain(self, body: dict[str, Any]) -> dict[str, Any]:
        items, task = body["items"], body["task"]
        full_answer = self.answer(task, items, {"k": 1})
        explained = full_answer["label"] if "label" in full_answer else full_answer["items"][0]

        def value(history: list[Any]) -> float:
            answer = self.answer(task, history, {"k": 1000, "exclude_seen": False})
            if "label" in answer:
                return float(answer["probabilities"][explained])
            return float(answer["scores"][answer["items"].index(explained)])

        losses = [value(items) - value(items[:i] + items[i + 1 :]) for i in range(len(items))]
        return {"task": task, "version": self.version, "of": explained, "value": value(items), "contributions": losses}

    def task_list(self) -> dict[str, Any]:
        tasks = [
            {
                "name": task, "kind": "ranking" if task == "next film" else "classification", "version": self.version,
                "classes": [] if task == "next film" else self.classes(task),
                "targets": len(self.items) if task == "next film" else 0,
            }
            for task in self.tasks
        ]  # fmt: skip
        model = {
            "items": len(self.items), "max_length": 50, "channels": 64, "blocks": 8, "kind": "causal",
            "fingerprint": "ab" * 32,
        }  # fmt: skip
        return {"tasks": tasks, "model": model}

    def bundles(self) -> dict[str, Any]:
        versions = [
            {
                **{name: task[name] for name in ("name", "version", "kind")},
                "active": True, "path": "bundles/x", "loaded_at": 1_700_000_000.0, "strategy": "patch",
                "parameters": 18_500, "patched_blocks": 8, "streamed": True,
                "index": {"kind": "approximate", "recall": 0.973} if task["kind"] == "ranking" else None,
                "metrics": {"accuracy": 0.412, "users": 2000.0},
            }
            for task in self.task_list()["tasks"]
        ]  # fmt: skip
        if versions:
            versions.append({**versions[0], "version": "00c0ffee", "active": False, "metrics": {"accuracy": 0.38}})
            versions.append({**versions[0], "version": "0bad0bad", "active": False, "withdrawn": True})
        return {"versions": versions, "failed": self.failed}

    def search(self, query: dict[str, list[str]]) -> dict[str, Any]:
        text = query.get("q", [""])[0].lower()
        rows = [
            {"item": item, "title": self.titles.get(str(item)), "count": 5000 - 13 * i}
            for i, item in enumerate(self.items)
        ]
        hits = [row for row in rows if text in str(row["item"]).lower() or text in str(row["title"] or "").lower()]
        hits.sort(key=lambda row: str(row["item"]) != text)
        return {"items": hits[: int(query.get("limit", ["20"])[0])]}

    def user(self, name: str) -> Any:
        if name not in self.users:
            return refusal(404, "nothing is known of this user")
        events = [
            {"id": f"e{i}", "item": item, "timestamp": 1.7e9 + i, "known": item in self.items}
            for i, item in enumerate(self.users[name])
        ]
        return {"user": name, "count": len(events), "events": events}

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: Any, key: str | None) -> Any:
        if self.keys and key not in self.keys:
            return refusal(401, "a key is needed", "Send it as a bearer token.", **{"WWW-Authenticate": "Bearer"})
        if self.keys and path == "/v1/bundles" and "operate" not in self.keys[key or ""]:
            return refusal(403, "this key may not operate")
        if path in self.faults:
            return self.faults[path]
        if path in self.hanging:
            self.hanging[path].wait(20)
        if path.startswith("/v1/users/"):
            return self.user(unquote(path.removeprefix("/v1/users/")))
        titles = {
            str(item): self.titles[str(item)] for item in (body or {}).get("items", []) if str(item) in self.titles
        }
        routes = {
            "GET /v1/tasks": self.task_list,
            "GET /v1/bundles": self.bundles,
            "GET /v1/items": lambda: self.search(query),
            "POST /v1/predict": lambda: self.predict(body),
            "POST /v1/explain": lambda: self.explain(body),
            "POST /v1/items/titles": lambda: {"titles": titles},
        }
        route = routes.get(f"{method} {path}")
        return route() if route else refusal(404, "no such path")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fakes: Fakes

    def answer(self, method: str) -> None:
        url = urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = "index.html" if url.path == "/" else url.path.removeprefix("/assets/")
        if method == "GET" and (PAGE / name).is_file() and "/" not in name:
            return self.send(200, (PAGE / name).read_bytes(), {"Content-Type": TYPES[Path(name).suffix]})
        body = json.loads(text) if text else None
        if url.path == "/v1/predict":
            self.fakes.requests.append(body)
            if self.fakes.held:
                self.fakes.held.pop(0).wait(10)
        key = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        response = self.fakes.handle(method, url.path, parse_qs(url.query), body, key)
        fault = response if isinstance(response, Fault) else Fault(200, response)
        data = fault.body.encode() if isinstance(fault.body, str) else json.dumps(fault.body).encode()
        return self.send(fault.status, data, {"Content-Type": "application/json", **fault.headers})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Security-Policy": POLICY, "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the page has asked something else meanwhile

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FakeApi:
    """A server for one module; `fakes` starts afresh with every test."""

    def __init__(self) -> None:
        self.handler = type("Bound", (Handler,), {})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.reset()
        self.thread.start()

    @property
    def fakes(self) -> Fakes:
        return self.handler.fakes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def reset(self) -> Fakes:
        self.handler.fakes = Fakes()
        return self.handler.fakes

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
