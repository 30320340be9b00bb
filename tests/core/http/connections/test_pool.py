"""No connection is used again after a response that nobody asked for. Binary responses carry no id."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, errors
from qwen3_vllm._core.http.connections import pool
from qwen3_vllm._core.http.connections.loop import background
from tests.conftest import Embed
from tests.fake_vllm import END_TOKEN, FakeVLLM
from tests.faults import Reply, SocketServer, always, first, honest, serve

EMBEDDINGS = "/v1/embeddings"
TEXTS = [f"text {number}" for number in range(4)]
TIMED_OUT = Reply(408, b"too late", {"Connection": "close"})


def client_of(server: SocketServer, **options: object) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url, **{"timeout": 30, **options})


def right(text: str) -> np.ndarray:
    return FakeVLLM("embedding").vector(text + END_TOKEN)


def twice(reply: Reply) -> bytes:
    """The response to this request, once more: binary, without anything that says what it belongs to."""
    return reply.head + reply.content


EXTRA = {
    "a response": twice,
    "half a head": lambda reply: twice(reply)[:20],
    "half a body": lambda reply: twice(reply)[:-20],
    "408": lambda reply: TIMED_OUT.head + TIMED_OUT.content,
    "an empty line": lambda reply: b"\r\n",
}


@pytest.mark.parametrize("apart", [False, True], ids=["together", "later"])
@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA)
@pytest.mark.parametrize("version", ["0.32.0", "0.12.0"], ids=["binary", "JSON"])
def test_what_comes_after_a_response_is_never_the_next_one(
    extra: Callable[[Reply], bytes], apart: bool, version: str
) -> None:
    done = threading.Event()

    def fault(connection: socket.socket, reply: Reply) -> None:
        if apart:
            honest(connection, reply)
            time.sleep(0.01)
            connection.sendall(extra(reply))
        else:
            connection.sendall(reply.head + reply.content + extra(reply))
        done.set()

    with serve(FakeVLLM("embedding", version=version)) as server:
        client = client_of(server, max_retries=0)
        client.embed_documents(["warm"])
        server.fault = always(fault, EMBEDDINGS)
        for text in TEXTS:
            done.clear()
            np.testing.assert_allclose(client.embed_documents([text])[0], right(text), atol=1e-6)
            assert done.wait(60)
            time.sleep(0.01)  # for what was sent to arrive


def test_a_response_behind_one_without_a_body_is_never_the_next_one(embed: Embed) -> None:
    def fault(connection: socket.socket, reply: Reply) -> None:
        connection.sendall(Reply(204, b"", reply.headers).head + twice(reply))

    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server)
        client.embed_documents(["warm"])
        server.fault = first(1, fault, EMBEDDINGS)
        with pytest.raises(errors.InvalidAnswerError):
            embed(client, ["a"])

        np.testing.assert_allclose(embed(client, ["b"])[0], right("b"), atol=1e-6)


def test_what_the_event_loop_has_not_read_yet_counts(embed: Embed) -> None:
    connections: list[socket.socket] = []

    def fault(connection: socket.socket, reply: Reply) -> None:
        connections.append(connection)
        honest(connection, reply)

    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, max_retries=0)
        client.embed_documents(["warm"])
        server.fault = first(1, fault, EMBEDDINGS)
        embed(client, ["a"])
        busy, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            busy.set()
            go_on.wait(60)

        background.get().call_soon_threadsafe(hold)
        assert busy.wait(60)
        connections[0].sendall(
            twice(
                FakeVLLM("embedding")._embeddings(  # type: ignore[arg-type]
                    {"input": ["a"], "encoding_format": "bytes_only"}
                )
            )
        )
        caller = threading.Timer(0.05, go_on.set)  # when the call below waits for the loop
        caller.start()

        np.testing.assert_allclose(embed(client, ["b"])[0], right("b"), atol=1e-6)


def test_clean_connections_are_used_again(embed: Embed) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server)
        for text in TEXTS:
            embed(client, [text])

        assert server.connections_made <= 2  # the model and its version are asked for at once


def test_where_a_socket_cannot_be_polled_connections_are_used_again_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "poll", lambda: None)
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server)
        for text in TEXTS:
            client.embed_documents([text])

        assert server.connections_made <= 2


def test_a_parser_that_ends_in_an_error_held_half_a_message(embedding_server: SocketServer) -> None:
    class Broken:
        def feed_eof(self) -> None:
            raise aiohttp.ClientPayloadError("not complete")

    async def look() -> bool:
        protocol = pool._Protocol(asyncio.get_running_loop())
        protocol._parser = Broken()  # type: ignore[assignment]
        return protocol._holds_half_a_message()

    assert asyncio.run(look())


def test_a_server_that_speaks_first_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = aiohttp.TCPConnector.connect

    greeted = threading.Semaphore(0)

    async def connect_and_read(*args: Any) -> Any:
        connection = await connect(*args)
        await asyncio.to_thread(greeted.acquire)
        await asyncio.sleep(0.05)
        return connection

    def greet(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                listener.accept()[0].sendall(b"220 mail.example ESMTP\r\n")
                greeted.release()

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect_and_read)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
        client = EmbeddingClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", max_retries=0)
        with pytest.raises(errors.ServerUnreachableError, match="spoke before it was asked"):
            client.embed_documents(["a"])
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("close", ["close", "keep-alive"])
def test_a_408_is_retried_once_at_once_on_another_connection(close: str, embed: Embed) -> None:
    def fault(connection: socket.socket, reply: Reply) -> None:
        honest(connection, Reply(408, b"too late", {"Connection": close}))

    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server)
        client.embed_documents(["warm"])
        server.fault = first(1, fault, EMBEDDINGS)
        made = server.connections_made

        np.testing.assert_allclose(embed(client, ["a"])[0], right("a"), atol=1e-6)
        server.fault = always(fault, EMBEDDINGS)
        server.requests.clear()
        with pytest.raises(errors.ServerError, match="408"):
            embed(client, ["b"])

    assert server.connections_made > made
    assert len(server.requests) == 2
