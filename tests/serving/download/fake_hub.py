"""A server on 127.0.0.1 that speaks enough of ModelScope's and Hugging Face's protocols to download from it.

Both list a repository as JSON and send files with HTTP ranges. Faults are set per path: `cut`, `corrupt`,
`stall`. What was asked is in `requests`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_BYTES = 1_000_000


@dataclass
class FakeHub:
    """The repositories it has, the faults it makes, the requests it saw."""

    repos: dict[str, dict[str, bytes]]
    url: str = ""
    cut: dict[str, int] = field(default_factory=dict)  # path: bytes after which the connection breaks, once
    corrupt: dict[str, int] = field(default_factory=dict)  # path: how many more times a byte is flipped
    stall: dict[str, int] = field(default_factory=dict)  # path: bytes after which nothing more is sent
    released: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    forbidden: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each time this file was asked for."""
        return [requested_range for asked, requested_range in self.requests if asked == path]


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve the hub until the block ends."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.authorizations.append(f"{self.headers.get('Authorization')} {self.headers.get('Cookie')}")
        url = urlsplit(self.path)
        parts = unquote(url.path).strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.hub.forbidden:
            self._json(403, {"Code": 403, "Message": "forbidden", "error": "forbidden"})
        elif parts[:3] == ["api", "v1", "models"] and len(parts) >= 6:
            self._modelscope("/".join(parts[3:5]), parts[5:], query)
        elif parts[:2] == ["api", "models"]:
            self._huggingface_listing("/".join(parts[2:4]))
        elif parts[2:4] == ["resolve", COMMIT]:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._json(404, {"Code": 404, "Message": "not found"})

    def _modelscope(self, repo: str, rest: list[str], query: dict[str, str]) -> None:
        if repo not in self.hub.repos:
            self._json(404, {"Code": 10010205001, "Message": "record not found", "Success": False})
        elif rest == ["repo", "files"]:
            files = [
                {"Path": path, "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest(), "Type": "blob"}
                for path, data in self.hub.repos[repo].items()
            ]
            self._json(200, {"Code": 200, "Success": True, "Data": {"Files": files}})
        else:
            self._file(repo, query["FilePath"])

    def _huggingface_listing(self, repo: str) -> None:
        if repo not in self.hub.repos:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        siblings: list[dict[str, Any]] = []
        for path, data in self.hub.repos[repo].items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
            if len(data) >= LFS_BYTES:
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": digest, "pointerSize": 135}
            entry["blobId"] = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            siblings.append(entry)
        self._json(200, {"id": repo, "sha": COMMIT, "siblings": siblings})

    def _file(self, repo: str, path: str) -> None:
        hub = self.hub
        data = hub.repos.get(repo, {}).get(path)
        if data is None:
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        requested_range = self.headers.get("Range")
        if self.command == "GET":
            hub.requests.append((path, requested_range))
        if hub.corrupt.get(path, 0) > 0 and self.command == "GET":
            hub.corrupt[path] -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        start = int(requested_range.removeprefix("bytes=").partition("-")[0]) if requested_range else 0
        body = data[start:]
        self.send_response(206 if requested_range else 200)
        if requested_range:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        if path in hub.stall:
            self.wfile.write(body[: hub.stall[path]])
            self.wfile.flush()
            hub.stalled.set()
            hub.released.wait()
            self.close_connection = True
        elif path in hub.cut:
            self.wfile.write(body[: hub.cut.pop(path)])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _json(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
