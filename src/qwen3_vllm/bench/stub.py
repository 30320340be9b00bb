"""A canned vLLM: answers at once with the same vectors, so that what is measured is the client.

`python -m qwen3_vllm.bench.stub` prints its port and serves until its standard input closes. Standard library
and orjson only, one process; an answer of 128 vectors costs it some 30 µs.
"""

import argparse
import asyncio
import base64
import os
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from qwen3_vllm.prompts import CONTROL_TOKENS

MODEL = "canned"
DIMENSIONS = 1024
CONTEXT = 32_768
_JSON = "application/json"
_CONTROL = re.compile("|".join(re.escape(token) for token in CONTROL_TOKENS))
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def answer(path: str, body: bytes) -> tuple[int, str, bytes]:
    """Answer one request: status, content type, body."""
    if path == "/v1/models":
        model = {"id": MODEL, "object": "model", "root": MODEL, "max_model_len": CONTEXT}
        return _ok({"object": "list", "data": [model]})
    if path == "/version":
        return _ok({"version": "0.32.0"})
    if path not in _ROUTES:
        return 404, _JSON, b'{"detail":"Not Found"}'
    asked = orjson.loads(body)
    return _embeddings(asked) if path == "/v1/embeddings" else _ok(_ROUTES[path](asked))


def _ok(value: object) -> tuple[int, str, bytes]:
    return 200, _JSON, orjson.dumps(value)


def _embeddings(asked: dict[str, Any]) -> tuple[int, str, bytes]:
    texts = asked["input"]
    # One token id list is one text, as is a string.
    count = 1 if isinstance(texts, str) or isinstance(texts[0], int) else len(texts)
    encoding = asked.get("encoding_format", "float")
    kind = "application/octet-stream" if encoding == "bytes_only" else _JSON
    dtype = "<f2" if asked.get("embed_dtype") == "float16" else "<f4"
    return 200, kind, _vectors(count, encoding, asked.get("dimensions") or DIMENSIONS, dtype)


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
    return orjson.dumps({"id": "embd-0", "object": "list", "model": MODEL, "data": data, "usage": usage})


def _tokens(text: str) -> list[int]:
    """One id a control token, else one a byte."""
    ids: list[int] = []
    end = 0
    for match in _CONTROL.finditer(text):
        ids += text[end : match.start()].encode()
        ids.append(151_643 + CONTROL_TOKENS.index(match.group()))
        end = match.end()
    return [*ids, *text[end:].encode()]


def _tokenize(asked: dict[str, Any]) -> dict[str, Any]:
    ids = _tokens(asked["prompt"])
    return {"count": len(ids), "max_model_len": CONTEXT, "tokens": ids}


def _score(asked: dict[str, Any]) -> dict[str, Any]:
    first, second = asked["text_1"], asked["text_2"]
    firsts = [first] * len(second) if isinstance(first, str) else first
    prompts = [one + two for one, two in zip(firsts, second, strict=True)]
    data = [{"object": "score", "index": i, "score": _p_yes(prompt)} for i, prompt in enumerate(prompts)]
    return {"id": "score-0", "object": "list", "model": MODEL, "data": data, "usage": _usage(prompts)}


def _classify(asked: dict[str, Any]) -> dict[str, Any]:
    prompts = asked["input"]
    data = [{"index": i, "probs": [_p_yes(prompt)], "num_classes": 1} for i, prompt in enumerate(prompts)]
    return {"id": "classify-0", "object": "list", "model": MODEL, "data": data, "usage": _usage(prompts)}


def _rerank(asked: dict[str, Any]) -> dict[str, Any]:
    scored: list[dict[str, Any]] = [
        {"index": i, "document": {"text": text}, "relevance_score": _p_yes(asked["query"] + text)}
        for i, text in enumerate(asked["documents"])
    ]
    scored.sort(key=lambda result: result["relevance_score"], reverse=True)
    return {"id": "rerank-0", "model": MODEL, "results": scored, "usage": _usage(asked["documents"])}


def _p_yes(prompt: str | list[int]) -> float:
    """As a random model's: any changed byte changes it."""
    content = prompt.encode() if isinstance(prompt, str) else repr(prompt).encode()
    return 0.02 + 0.96 * zlib.crc32(content) / 2**32


def _usage(prompts: list[Any]) -> dict[str, int]:
    total = sum(len(_tokens(prompt)) if isinstance(prompt, str) else len(prompt) for prompt in prompts)
    return {"prompt_tokens": total, "total_tokens": total}


_ROUTES: dict[str, Any] = {
    "/v1/embeddings": _embeddings,
    "/tokenize": _tokenize,
    "/v1/score": _score,
    "/score": _score,
    "/classify": _classify,
    "/v1/rerank": _rerank,
    "/rerank": _rerank,
}


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as clients use."""

    def __init__(self, pace: "_Pace") -> None:
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
            path = head.split(b" ", 2)[1].decode()
            status, kind, content = answer(path, body)
            start = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n".encode()
            if kind == _JSON:
                start += b"Content-Length: %d\r\n\r\n" % len(content)
            else:  # as vLLM: without a length
                start += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(content)
                content += b"\r\n0\r\n\r\n"
            self._pace.send(self._transport, start + content, path, body)


class _Pace:
    """Lets answers with vectors go at `rate` documents a second together, like one busy GPU; 0: at once."""

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
    pace = _Pace(rate)
    server = await loop.create_server(lambda: _Connection(pace), "127.0.0.1", 0)
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
        rate: Documents a second that it embeds at most; 0: as fast as it can.
        cores: The cores that it may use; None: any.
    """
    command = [sys.executable, "-m", "qwen3_vllm.bench.stub", "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
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
