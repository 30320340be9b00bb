"""A real socket server in threads, honest by default, that can misbehave on purpose.

It answers what a function tells it to; `fault` chooses, request by request, how the answer is spoilt.
"""

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BufferedReader
from typing import Any, Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What a client sent; header names in lower case, with commas between the values of one sent twice."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server sends back."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: object, status: int = 200, **headers: str) -> Self:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    @property
    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        headers = {"Content-Length": str(len(self.content)), **self.headers}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()


Answer = Callable[[Request], Reply | None]
"""None: the server never answers."""
Fault = Callable[[socket.socket, Reply], None]
Chooser = Callable[[Request], Fault]


def honest(connection: socket.socket, reply: Reply) -> None:
    connection.sendall(reply.head + reply.content)


def hang(connection: socket.socket, reply: Reply) -> None:
    """Say nothing until the client goes."""
    connection.recv(1)
    raise ConnectionAbortedError


def hang_in_body(connection: socket.socket, reply: Reply) -> None:
    connection.sendall(reply.head + reply.content[: len(reply.content) // 2])
    hang(connection, reply)


def reset(connection: socket.socket, reply: Reply) -> None:
    """Break the connection in the middle of the body, without a goodbye."""
    connection.sendall(reply.head + reply.content[: len(reply.content) // 2])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionAbortedError


def cut_off(connection: socket.socket, reply: Reply) -> None:
    """Close in the middle of the body, as a server does that was told to stop."""
    connection.sendall(reply.head + reply.content[: len(reply.content) // 2])
    raise ConnectionAbortedError


def boast(connection: socket.socket, reply: Reply) -> None:
    """Announce a petabyte, and close after the right answer."""
    length = {"Content-Length": str(10**15)}
    connection.sendall(Reply(reply.status, b"", reply.headers | length).head + reply.content)
    raise ConnectionAbortedError


def drip(connection: socket.socket, reply: Reply) -> None:
    """Send one byte at a time, beginning with the head: each read succeeds, the whole takes minutes."""
    for byte in reply.head + reply.content:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def drip_body(connection: socket.socket, reply: Reply) -> None:
    connection.sendall(reply.head)
    drip(connection, Reply(content=reply.content * 100))


def instead(status: int, value: object = None, **headers: str) -> Fault:
    """Answer something else; a str is an HTML page, None an empty body."""
    if isinstance(value, str):
        reply = Reply(status, value.encode(), {"Content-Type": "text/html", **headers})
    else:
        content = b"" if value is None else json.dumps(value).encode()
        reply = Reply(status, content, {"Content-Type": "application/json", **headers})
    return lambda connection, _: honest(connection, reply)


def changed(change: Callable[[bytes], bytes]) -> Fault:
    """Spoil the body of the right answer."""
    return lambda connection, reply: honest(
        connection, Reply(reply.status, change(reply.content), reply.headers)
    )


def in_pieces(connection: socket.socket, reply: Reply) -> None:
    """Send the body without its length, a vector of 32 bytes at a time, as vLLM sends binary answers."""
    headers = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
    head = Reply(reply.status, b"", headers).head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    connection.sendall(head)
    for start in range(0, len(reply.content), 32):
        piece = reply.content[start : start + 32]
        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    connection.sendall(b"0\r\n\r\n")


def always(fault: Fault, path: str = "") -> Chooser:
    return lambda request: fault if request.path.endswith(path) else honest


NO_FAULT = always(honest)


def first(count: int, fault: Fault, path: str = "") -> Chooser:
    """Spoil the first `count` answers of this path."""
    left = iter(range(count))

    def choose(request: Request) -> Fault:
        return fault if request.path.endswith(path) and next(left, None) is not None else honest

    return choose


class SocketServer:
    """Listens on 127.0.0.1, one thread a connection; what it saw is in `requests`."""

    def __init__(self, answer: Answer, fault: Chooser = NO_FAULT, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.fault = fault
        self.requests: list[Request] = []
        self.connections: set[socket.socket] = set()
        self.connections_made = 0
        self.in_flight = 0
        self._tls = tls
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.base_url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._start()

    def bodies(self, path: str) -> list[Any]:
        """What was sent to this path, in order of arrival."""
        return [request.json for request in self.requests if request.path == path]

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def restart(self, answer: Answer | None = None) -> None:
        """Stop as a killed process does, and start at the same address."""
        self.stop()
        self.answer = answer or self.answer
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self.connections)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)
        self._threads.clear()

    def _start(self) -> None:
        acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._threads = [acceptor]
        acceptor.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        with self._lock:
            self.connections.add(connection)
            self.connections_made += 1
        try:
            with connection:
                self._converse(connection)
        except OSError:
            pass  # the client went, or a fault ends the connection
        finally:
            with self._lock:
                self.connections.discard(connection)

    def _converse(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            try:
                while request := _read(stream):
                    self._respond(connection, request)
            except ValueError:
                honest(connection, Reply(400, b"Invalid HTTP request received."))

    def _respond(self, connection: socket.socket, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            self.in_flight += 1
        try:
            reply = self.answer(request)
            if reply is None:
                hang(connection, Reply())
            else:
                self.fault(request)(connection, reply)
        finally:
            with self._lock:
                self.in_flight -= 1


@contextmanager
def serve(
    answer: Answer, fault: Chooser = NO_FAULT, tls: ssl.SSLContext | None = None
) -> Iterator[SocketServer]:
    """Run a server for the time of a `with` block."""
    server = SocketServer(answer, fault, tls)
    try:
        yield server
    finally:
        server.stop()


def at_once(check: Callable[[T], object], cases: Iterable[T]) -> None:
    """Check several cases that wait for a time limit: it goes by once for all of them."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, cases))


def _read(stream: BufferedReader) -> Request | None:
    if stream.peek(1)[:1] == b"\x16":
        raise ValueError("a TLS handshake")
    line = stream.readline()
    if not line.strip():
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, value = line.decode().split(":", 1)
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(method, path, headers, stream.read(int(headers.get("content-length", 0))))
