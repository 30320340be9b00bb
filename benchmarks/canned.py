"""A canned vLLM: the tests' fake, made to answer at once, so that what is measured is the client.

`python -m benchmarks.canned` prints its port and serves until its standard input closes.
"""

import argparse
import asyncio
import base64
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.fake_vllm import FakeVLLM
from tests.faults import Answer, Reply, Request

ROOT = Path(__file__).parent.parent
DIMENSIONS = 1024
CONTEXT = 32_768
_OCTETS = {"Content-Type": "application/octet-stream"}
_JSON = {"Content-Type": "application/json"}
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Canned:
    """Gives every text the same vectors, made once; scores as the fake does."""

    def __init__(self) -> None:
        self._reranker = FakeVLLM("reranker", model="canned", context=CONTEXT)

    def __call__(self, request: Request) -> Reply | None:
        """Answer a request; 128 vectors cost some 30 µs."""
        if request.path == "/v1/embeddings":
            return _embeddings(orjson.loads(request.body))
        return self._reranker(request)


def _embeddings(body: dict[str, Any]) -> Reply:
    texts = body["input"]
    # One token id list is one text, as is a string.
    count = 1 if isinstance(texts, str) or isinstance(texts[0], int) else len(texts)
    encoding = body.get("encoding_format", "float")
    dtype = "<f2" if body.get("embed_dtype") == "float16" else "<f4"
    content = _vectors(count, encoding, body.get("dimensions") or DIMENSIONS, dtype)
    return Reply(200, content, _OCTETS if encoding == "bytes_only" else _JSON)


@lru_cache(maxsize=64)
def _vectors(count: int, encoding: str, dimensions: int, dtype: str) -> bytes:
    vectors = np.random.default_rng(0).standard_normal((count, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if encoding == "bytes_only":
        return vectors.astype(dtype).tobytes()
    rows = [
        base64.b64encode(row.astype(dtype).tobytes()).decode() if encoding == "base64" else row.tolist()
        for row in vectors
    ]
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return orjson.dumps({"id": "embd-0", "object": "list", "model": "canned", "data": data, "usage": usage})


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as clients use."""

    def __init__(self, answer: Answer, pace: "_Pace") -> None:
        self._answer = answer
        self._pace = pace
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            length = _LENGTH.search(head)
            total = end + 4 + (int(length.group(1)) if length else 0)
            if len(self._received) < total:
                return
            body = bytes(self._received[end + 4 : total])
            del self._received[:total]
            method, path, _ = head.decode().split(" ", 2)
            reply = self._answer(Request(method, path, {}, body))
            if reply is not None:
                self._pace.send(self._transport, _sent(reply), path, body)


def _sent(reply: Reply) -> bytes:
    if reply.headers is not _OCTETS:
        return reply.head + reply.content
    # As vLLM sends them: without a length.
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(reply.content), reply.content)


class _Pace:
    """Lets answers with vectors go at `rate` documents per second together, like one busy GPU; 0: at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    def send(self, transport: asyncio.Transport, content: bytes, path: str, body: bytes) -> None:
        if not self._rate or path != "/v1/embeddings":
            transport.write(content)
            return
        loop = asyncio.get_running_loop()
        count = len(orjson.loads(body)["input"])
        self._free_at = max(self._free_at, loop.time()) + count / self._rate
        loop.call_at(self._free_at, transport.write, content)


async def _serve(rate: float) -> None:
    loop = asyncio.get_running_loop()
    answer, pace = Canned(), _Pace(rate)
    server = await loop.create_server(lambda: _Connection(answer, pace), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()

    def wait_for_parent() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_parent, daemon=True).start()
    await ended.wait()


@contextmanager
def canned_server(*, rate: float = 0.0, cores: set[int] | None = None) -> Iterator[str]:
    """Run a canned server in a process of its own; yields its address, without `/v1`.

    Args:
        rate: Documents per second that it embeds at most; 0: as fast as it can.
        cores: The cores that it may use; None: any.
    """
    command = [sys.executable, "-m", "benchmarks.canned", "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cores)
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.0)
    asyncio.run(_serve(parser.parse_args().rate))
