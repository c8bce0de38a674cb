"""A stand-in for the Hugging Face Hub: the part of its HTTP interface that its own client calls for models.

Repositories are commits of whole trees in memory, and large files are in an LFS store, to which the client sends them
before it commits. Xet storage is not spoken: tests/conftest.py turns it off in the client.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_owner"
LICENSES = ("apache-2.0", "cc-by-4.0", "mit")
LARGE = (".safetensors", ".parquet")
ID = r"([\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """Trees by commit, and commits by branch or tag; `private`: for the owner's token only; `gated`: for nobody yet."""

    private: bool = False
    gated: bool = False
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: dict[str, bytes], ref: str = "main") -> str:
        seed = json.dumps([ref, len(self.trees), sorted((n, hashlib.sha1(d).hexdigest()) for n, d in tree.items())])
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.trees[sha], self.refs[ref] = tree, sha
        return sha


class RefusalError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", body: Any = None) -> None:
        self.status, self.code, self.message, self.body = status, code, message, body


@dataclass
class Reply:
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


def as_json(value: Any) -> Reply:
    return Reply(json.dumps(value).encode(), {"Content-Type": "application/json"})


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Hub:
    """The state of the Hub and its operations.

    Attributes:
        repositories: by id.
        large_files: by sha256.
        fault: is asked before each request; a status that it returns is the answer.
        requests: method and path of each request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.fault: Callable[[str, str], int | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> Reply:
        self.requests.append((method, path))
        status = self.fault(method, path)
        if status is not None:
            raise RefusalError(status, message="a fault")
        for wanted, pattern, operation in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method in wanted:
                return operation(self, *(group and unquote(group) for group in match.groups()), token=token, body=body)
        raise RefusalError(404, message=f"no such route: {method} {path}")

    def repository(self, repo_id: str, token: str | None, *, write: bool = False) -> Repository:
        repository = self.repositories.get(repo_id)
        if repository is None or (repository.private and token != TOKEN):
            raise RefusalError(404 if token == TOKEN else 401, "RepoNotFound", "Repository not found")
        if repository.gated:
            raise RefusalError(403, "GatedRepo", "Access is restricted")
        if write and token != TOKEN:
            raise RefusalError(403, message="you have no right to write here")
        return repository

    def revision(self, repository: Repository, revision: str | None) -> tuple[str, dict[str, bytes]]:
        sha = repository.refs.get(revision or "main", revision or "")
        if sha not in repository.trees:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.trees[sha]

    def create(self, token: str | None, body: bytes) -> Reply:
        if token != TOKEN:
            raise RefusalError(401, message="Invalid username or password.")
        wish = json.loads(body)
        repo_id = f"{wish['organization']}/{wish['name']}"
        if repo_id in self.repositories:
            error = {"error": "You already created this model repo", "url": f"{self.address}/{repo_id}"}
            raise RefusalError(409, body=error)
        private = wish.get("private") or wish.get("visibility") == "private"
        self.repositories[repo_id] = Repository(bool(private))
        self.repositories[repo_id].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return as_json({"url": f"{self.address}/{repo_id}", "id": repo_id, "name": repo_id})

    def validate(self, token: str | None, body: bytes) -> Reply:
        license = re.search(r"^license: (.*)$", json.loads(body)["content"], flags=re.MULTILINE)
        if license and license[1] not in LICENSES:
            errors = [{"message": f'"license" must be one of {", ".join(LICENSES)}'}]
            raise RefusalError(400, body={"errors": errors, "warnings": []})
        return as_json({"errors": [], "warnings": []})

    def info(self, repo_id: str, revision: str | None, token: str | None, body: bytes) -> Reply:
        repository = self.repository(repo_id, token)
        sha, tree = self.revision(repository, revision)
        siblings = [{"rfilename": name} for name in tree]
        return as_json({"id": repo_id, "sha": sha, "siblings": siblings, "private": repository.private, "tags": []})

    def tree(self, repo_id: str, revision: str, token: str | None, body: bytes) -> Reply:
        _, tree = self.revision(self.repository(repo_id, token), revision)
        return as_json([self._tree_entry(name, data) for name, data in tree.items()])

    def _tree_entry(self, name: str, data: bytes) -> dict[str, Any]:
        large = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
        return {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)} | (
            {"lfs": large} if name.endswith(LARGE) else {}
        )

    def branch(self, repo_id: str, name: str, token: str | None, body: bytes) -> Reply:
        repository = self.repository(repo_id, token, write=True)
        if name in repository.refs:
            raise RefusalError(409, message="Reference already exists")
        repository.refs[name] = repository.refs["main"]
        return as_json({})

    def preupload(self, repo_id: str, revision: str, token: str | None, body: bytes) -> Reply:
        _, tree = self.revision(self.repository(repo_id, token, write=True), revision)
        files = []
        for name in (file["path"] for file in json.loads(body)["files"]):
            mode, identify = ("lfs", sha256) if name.endswith(LARGE) else ("regular", blob_id)
            oid = {"oid": identify(tree[name])} if name in tree else {}
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False} | oid)
        return as_json({"files": files})

    def batch(self, repo_id: str, token: str | None, body: bytes) -> Reply:
        self.repository(repo_id, token, write=True)
        objects = json.loads(body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.large_files:
                entry["actions"] = {"upload": {"href": f"{self.address}/lfs/{entry['oid']}", "header": {}}}
        return as_json({"transfer": "basic", "objects": objects})

    def store(self, oid: str, token: str | None, body: bytes) -> Reply:
        if sha256(body) != oid:
            raise RefusalError(400, message="the hash is another")
        self.large_files[oid] = body
        return Reply()

    def commit(self, repo_id: str, ref: str, token: str | None, body: bytes) -> Reply:
        repository = self.repository(repo_id, token, write=True)
        parent, tree = self.revision(repository, ref)
        tree = dict(tree)
        for line in body.splitlines():
            operation = json.loads(line)
            kind, value = operation["key"], operation["value"]
            if kind == "header" and value.get("parentCommit", parent) != parent:
                raise RefusalError(412, message="A commit has happened since. Please refresh and try again.")
            if kind == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                tree[value["path"]] = self.large_files[value["oid"]]
            elif kind == "deletedFile":
                del tree[value["path"]]
        sha = repository.commit(tree, ref)
        url = f"{self.address}/{repo_id}/commit/{sha}"
        return as_json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def resolve(self, repo_id: str, revision: str, name: str, token: str | None, body: bytes) -> Reply:
        sha, tree = self.revision(self.repository(repo_id, token), revision)
        if name not in tree:
            raise RefusalError(404, "EntryNotFound", "Entry not found")
        data = tree[name]
        if name.endswith(LARGE):  # its content is at another host, as of the Hub
            linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": sha}
            self.large_files[sha256(data)] = data
            host = self.address.replace("127.0.0.1", "localhost")
            return Reply(headers=linked | {"Location": f"{host}/cdn/{sha256(data)}"}, status=302)
        return Reply(data, {"ETag": f'"{blob_id(data)}"', "X-Repo-Commit": sha})

    def content(self, oid: str, token: str | None, body: bytes) -> Reply:
        assert token is None, "a token is for the Hub, and not for who keeps its files"
        return Reply(self.large_files[oid], {"ETag": f'"{oid}"'})


ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("POST", "/api/repos/create", Hub.create),
    ("POST", "/api/validate-yaml", Hub.validate),
    ("GET", rf"/api/models/{ID}(?:/revision/([^/]+))?", Hub.info),
    ("GET", rf"/api/models/{ID}/tree/([^/]+)", Hub.tree),
    ("POST", rf"/api/models/{ID}/branch/([^/]+)", Hub.branch),
    ("POST", rf"/api/models/{ID}/preupload/([^/]+)", Hub.preupload),
    ("POST", rf"/api/models/{ID}/commit/([^/]+)", Hub.commit),
    ("POST", rf"/{ID}\.git/info/lfs/objects/batch", Hub.batch),
    ("PUT", r"/lfs/(\w+)", Hub.store),
    ("GET HEAD", r"/cdn/(\w+)", Hub.content),
    ("GET HEAD", rf"/{ID}/resolve/([^/]+)/(.+)", Hub.resolve),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def _handle(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        try:
            reply = self.hub.answer(self.command, urlsplit(self.path).path, token, self._body())
        except RefusalError as refusal:
            body = refusal.body or {"error": refusal.message}
            reply = as_json(body)
            reply.status = refusal.status
            reply.headers |= {"X-Error-Message": refusal.message}
            reply.headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
        self.send_response(reply.status)
        for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - names of http.server

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a Hub at a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
