"""A local stand-in of the hub's HTTP API: repositories, commits, LFS uploads, trees, downloads.

As huggingface_hub 2.4 speaks to it with HF_HUB_DISABLE_XET=1. Whatever it is asked under the owner
``forbidden`` is refused with a body that repeats the token it was given.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

LFS = re.compile(r".*\.(safetensors|parquet)")


@dataclass
class Repository:
    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])

    def at(self, revision: str) -> dict[str, bytes] | None:
        shas = [sha(place) for place in range(len(self.commits))]
        if revision == "main":
            return self.commits[-1]
        return self.commits[shas.index(revision)] if revision in shas else None


def sha(place: int) -> str:
    return hashlib.sha1(str(place).encode()).hexdigest()


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)


@contextmanager
def hub() -> Iterator[Hub]:
    kept = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Handler,), {"hub": kept}))
    kept.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.tokens.add(token)
        if "forbidden" in path or b"forbidden" in body[:200]:
            self.send(403, {"error": f"{token} may not do that"})
            return
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                method(self, body, **found.groupdict())
                return
        self.send(404, {"error": "no such page"}, RepoNotFound=True)

    def send(self, status: int, value: Any = None, *, data: bytes = b"", **more: Any) -> None:
        payload = data if value is None else json.dumps(value).encode()
        self.send_response(status)
        if more.pop("RepoNotFound", False):
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(payload)))
        for name, content in more.items():
            self.send_header(name.replace("_", "-"), content)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def repository(self, kind: str, repo: str) -> Repository | None:
        found = self.hub.repositories.get(f"{kind}/{repo}")
        if not found:
            self.send(404, {"error": "Repository not found"}, RepoNotFound=True)
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        kind = asked.get("type", "model")
        name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
        page = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        private = asked.get("private") or asked.get("visibility") == "private"
        known = f"{kind}/{name}" in self.hub.repositories
        self.hub.repositories.setdefault(f"{kind}/{name}", Repository(private))
        self.send(409 if known else 200, {"url": page, "name": name})

    def validate(self, body: bytes) -> None:
        import yaml

        text = json.loads(body)["content"]
        yaml.safe_load(text.split("---")[1])
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if self.repository(kind, repo):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if LFS.fullmatch(file["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.send(200, {"files": modes})

    def batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self.send(200)

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if not (found := self.repository(kind, repo)):
            return
        files = dict(found.commits[-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        found.commits.append(files)
        oid = sha(len(found.commits) - 1)
        self.send(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def info(self, body: bytes, kind: str, repo: str, revision: str | None = None) -> None:
        if found := self.repository(kind, repo):
            if (files := found.at(revision or "main")) is None:
                self.send(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
            else:
                oid = sha(found.commits.index(files))
                siblings = [{"rfilename": name} for name in files]
                self.send(200, {"id": repo, "sha": oid, "siblings": siblings, "tags": []})

    def tree(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if found := self.repository(kind, repo):
            files = found.at(revision) or {}
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"}
                for name, data in files.items()
            ]
            self.send(200, rows)

    def resolve(self, body: bytes, repo: str, revision: str, name: str, data: str = "") -> None:
        if found := self.repository("dataset" if data else "model", repo):
            content = (found.at(revision) or {})[name]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            commit = sha(found.commits.index(found.at(revision) or {}))
            self.send(200, data=content, ETag=etag, X_Repo_Commit=commit)


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>model|dataset)s/{_REPO}"
ROUTES: tuple[tuple[str, Any], ...] = (
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST {_API}/preupload/(?P<revision>.+)", Handler.preupload),
    (rf"POST /(?:datasets/)?{_REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /lfs/(?P<oid>.+)", Handler.upload),
    (rf"POST {_API}/commit/(?P<revision>.+)", Handler.commit),
    (rf"GET {_API}/tree/(?P<revision>[^/]+)", Handler.tree),
    (rf"GET {_API}(?:/revision/(?P<revision>.+))?", Handler.info),
    (
        rf"(?:GET|HEAD) /(?P<data>datasets/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)",
        Handler.resolve,
    ),
)
