"""HAProxy's configuration: read by HAProxy itself, and run before small servers where it is installed."""

import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qwen3_vllm._core.priority import BULK, PRIORITY_HEADER
from qwen3_vllm.serving.balancer import haproxy_program
from qwen3_vllm.serving.command.haproxy import haproxy_config
from qwen3_vllm.serving.machine.ports import free_ports

LONG, SHORT = b"x" * 5000, b"x" * 500
MARKED = {PRIORITY_HEADER: BULK}


@pytest.fixture(scope="module")
def haproxy() -> str:
    program = haproxy_program()
    return program or pytest.skip("haproxy is not installed")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "", "localhost"])
@pytest.mark.parametrize("role", ["embedding", "reranker"])
@pytest.mark.parametrize("count", [2, 3])
def test_haproxy_reads_it_without_a_warning(
    host: str, role: Any, count: int, haproxy: str, tmp_path: Path
) -> None:
    config = tmp_path / "cfg"
    config.write_text(haproxy_config(role, host, 9100, [f"127.0.0.1:{9101 + n}" for n in range(count)]))
    done = subprocess.run([haproxy, "-c", "-f", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_there_is_no_admin_port_and_no_header_of_its_own() -> None:
    config = haproxy_config("embedding", "127.0.0.1", 9100, ["127.0.0.1:1", "127.0.0.1:2"])
    assert config.count("bind ") == 1
    for word in ("stats", "forwardfor", "set-header", "del-header", "http-buffer-request"):
        assert word not in config


class Backend(ThreadingHTTPServer):
    """Answers with its number; while `held` is set, a POST waits."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, number: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.number, self.in_flight = number, 0
        self.is_well = True
        self.free = threading.Event()
        self.free.set()
        self.seen: list[tuple[str, dict[str, str], int]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/health":
            self.server.seen.append((self.path, dict(self.headers), 0))
        self._answer(200 if self.server.is_well else 503)

    def do_POST(self) -> None:
        if "Transfer-Encoding" in self.headers:
            while self.rfile.readline() not in (b"0\r\n", b""):
                pass
            self.rfile.readline()
        size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.server.seen.append((self.path, dict(self.headers), size))
        self.server.free.wait(30)
        self._answer()

    def _answer(self, status: int = 200) -> None:
        body = str(self.server.number).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def balanced(
    haproxy: str, folder: Path, role: Any, count: int, *, looks_often: bool = False
) -> Iterator[tuple[str, list[Backend]]]:
    front, *ports = free_ports(count + 1)
    backends = [Backend(port, number) for number, port in enumerate(ports)]
    for backend in backends:
        threading.Thread(target=backend.serve_forever, args=(0.05,), daemon=True).start()
    config = folder / "haproxy.cfg"
    text = haproxy_config(role, "127.0.0.1", front, [f"127.0.0.1:{port}" for port in ports])
    config.write_text(text.replace("inter 2s", "inter 10ms") if looks_often else text)
    process = subprocess.Popen([haproxy, "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{front}"
    try:
        until(lambda: answers(url))
        yield url, backends
    finally:
        for backend in backends:
            backend.free.set()
        process.terminate()
        process.wait()
        for backend in backends:
            backend.shutdown()
            backend.server_close()


def until(met: Any) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return bool(ask(url, "/health"))
    except OSError:
        return False


def ask(url: str, path: str = "/v1/embeddings", body: bytes | None = None, **headers: str) -> str:
    request = urllib.request.Request(url + path, data=body, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        text: str = response.read().decode()
        return text


def ask_anyhow(url: str) -> str | None:
    try:
        return ask(url, body=LONG)
    except (OSError, HTTPException):
        return None


@contextmanager
def held(url: str, backends: list[Backend], body: bytes, count: int, **headers: str) -> Iterator[None]:
    """Have requests in flight inside the block; every server but one that gets none holds them back."""
    before = sum(counts(backends))
    threads = [
        threading.Thread(target=ask, args=(url, "/v1/embeddings", body), kwargs=headers) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        until(lambda: sum(counts(backends)) == before + count)
        yield
    finally:
        for backend in backends:
            backend.free.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def three(haproxy: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Backend]]]:
    with balanced(haproxy, tmp_path_factory.mktemp("three"), "embedding", 3) as running:
        yield running


@pytest.fixture(autouse=True)
def forget(request: pytest.FixtureRequest) -> None:
    if "three" in request.fixturenames:
        for backend in request.getfixturevalue("three")[1]:
            backend.seen.clear()


def counts(backends: list[Backend]) -> list[int]:
    return [len(backend.seen) for backend in backends]


@pytest.mark.parametrize(
    ("body", "headers"), [(LONG, {}), (SHORT, MARKED), (SHORT, {PRIORITY_HEADER.lower(): "Bulk"})]
)
def test_bulk_never_goes_to_the_free_server(
    three: tuple[str, list[Backend]], body: bytes, headers: dict[str, str]
) -> None:
    url, backends = three
    assert {ask(url, body=body, **headers) for _ in range(12)} == {"1", "2"}
    assert counts(backends) == [0, 6, 6]


def test_a_body_that_does_not_tell_its_length_is_bulk(three: tuple[str, list[Backend]]) -> None:
    url, backends = three
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    for _ in range(6):
        connection.request("POST", "/v1/embeddings", iter([b"x"]), encode_chunked=True)
        connection.getresponse().read()
    connection.close()
    assert counts(backends) == [0, 3, 3]


def test_a_body_that_does_not_tell_its_length_is_bulk_in_http_2_too(
    three: tuple[str, list[Backend]],
) -> None:
    url, backends = three
    host, _, port = url.removeprefix("http://").partition(":")
    path = b"/v1/embeddings"
    # Of HPACK's table POST and http; then :path and :authority as they are.
    fields = b"\x83\x86" + b"\x04%c%b" % (len(path), path) + b"\x01\x01a"
    frames = frame(4, 0, 0, b"") + frame(1, 4, 1, fields) + frame(0, 1, 1, b"x")
    for _ in range(6):
        before = sum(counts(backends))
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
            until(lambda: sum(counts(backends)) > before)  # noqa: B023
    assert counts(backends) == [0, 3, 3]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One of HTTP/2; flags 4 of kind 1 (HEADERS): all of them; 1 of kind 0 (DATA): the last."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def test_queries_beside_a_flood_of_bulk_have_a_server_of_their_own(three: tuple[str, list[Backend]]) -> None:
    url, backends = three
    for backend in backends[1:]:
        backend.free.clear()
    with held(url, backends, LONG, 100):
        assert counts(backends) == [0, 50, 50]
        assert [ask(url, body=SHORT) for _ in range(20)] == ["0"] * 20


def test_without_bulk_queries_use_all_servers(three: tuple[str, list[Backend]]) -> None:
    url, backends = three
    for backend in backends:
        backend.free.clear()
    with held(url, backends, SHORT, 9):
        assert counts(backends) == [3, 3, 3]


def test_every_servers_metrics_can_be_read(three: tuple[str, list[Backend]]) -> None:
    url, backends = three
    assert [ask(url, f"/metrics/{number}") for number in range(3)] == ["0", "1", "2"]
    assert {path for backend in backends for path, _, _ in backend.seen} == {"/metrics"}


def test_key_and_body_arrive_as_they_were_sent(three: tuple[str, list[Backend]]) -> None:
    url, backends = three
    large = b"x" * (5 * 2**20)
    ask(url, body=large, Authorization="Bearer the-key")
    ((path, headers, size),) = [each for backend in backends for each in backend.seen]
    sent = {name.lower(): value for name, value in headers.items()}
    assert (path, size, sent["authorization"]) == ("/v1/embeddings", len(large), "Bearer the-key")
    assert "x-forwarded-for" not in sent


def test_rerank_calls_go_to_the_least_busy_of_all(haproxy: str, tmp_path: Path) -> None:
    with balanced(haproxy, tmp_path, "reranker", 3) as (url, backends):
        for backend in backends:
            backend.free.clear()
        with held(url, backends, LONG, 6, **MARKED):
            assert counts(backends) == [2, 2, 2]


def test_a_server_that_is_gone_gets_nothing_more(haproxy: str, tmp_path: Path) -> None:
    with balanced(haproxy, tmp_path, "embedding", 2) as (url, backends):
        backends[0].shutdown()
        backends[0].server_close()
        assert {ask(url, body=LONG) for _ in range(6)} == {"1"}


def test_bulk_goes_to_the_free_server_when_no_other_is_up(haproxy: str, tmp_path: Path) -> None:
    with balanced(haproxy, tmp_path, "embedding", 3, looks_often=True) as (url, backends):
        for backend in backends[1:]:
            backend.is_well = False
        until(lambda: [ask_anyhow(url) for _ in range(6)] == ["0"] * 6)  # the others are seen to be down
        assert {ask(url, body=LONG) for _ in range(6)} == {"0"}


def test_what_a_server_that_is_down_has_been_sent_is_ended(haproxy: str, tmp_path: Path) -> None:
    with balanced(haproxy, tmp_path, "embedding", 3, looks_often=True) as (url, backends):
        for backend in backends[1:]:
            backend.free.clear()
        ended: list[str | None] = []
        waiting = [threading.Thread(target=lambda: ended.append(ask_anyhow(url))) for _ in range(4)]
        for thread in waiting:
            thread.start()
        until(lambda: counts(backends) == [0, 2, 2])
        backends[1].is_well = False  # and answers nothing that it has
        until(lambda: ended == [None, None])
        backends[2].free.set()
        assert ask(url, body=LONG) == "2"
        for thread in waiting:
            thread.join()
        assert ended[2:] == ["2", "2"]


def test_the_program_is_found_outside_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    known = shutil.which("/usr/sbin/haproxy")
    assert haproxy_program() == known
