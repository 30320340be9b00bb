"""A response that carries the id of another request is never returned."""

import os
import socket
from collections.abc import Callable

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, errors
from qwen3_vllm._core.http.request_ids import RequestIds
from tests.conftest import Embed
from tests.fake_vllm import END_TOKEN, FakeVLLM
from tests.faults import Fault, Reply, Request, SocketServer, honest, serve

EMBEDDINGS = "/v1/embeddings"


class Mixed:
    """A proxy that answers each request with what belongs to the one before, on whatever connection."""

    def __init__(self, times: int, rename: Callable[[bytes], bytes] = bytes) -> None:
        self.left = times
        self.rename = rename
        self.before: Reply | None = None
        self.used: list[socket.socket] = []

    def __call__(self, request: Request) -> Fault:
        return self.fault if request.path == EMBEDDINGS else honest

    def fault(self, connection: socket.socket, reply: Reply) -> None:
        self.used.append(connection)
        before, self.before = self.before, reply
        if before is not None and self.left > 0:
            self.left -= 1
            reply = Reply(200, self.rename(before.content), before.headers)
        honest(connection, reply)


def client_of(server: SocketServer, **options: object) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url, timeout=30, **options)


JSON = FakeVLLM("embedding", version="0.12.0")


def right(text: str) -> np.ndarray:
    return JSON.vector(text + END_TOKEN)


def test_an_answer_to_another_request_is_asked_for_again_on_another_connection(embed: Embed) -> None:
    with serve(JSON) as server:
        client = client_of(server)
        embed(client, ["warm"])
        server.fault = mixed = Mixed(1)
        server.requests.clear()
        for text in "abcd":
            np.testing.assert_allclose(embed(client, [text])[0], right(text), atol=1e-6)

    assert len(server.requests) == 5
    _, mixed_up, *later = mixed.used
    assert mixed_up not in later


def test_a_server_that_mixes_up_all_answers_is_an_error(embed: Embed) -> None:
    with serve(JSON) as server:
        client = client_of(server)
        embed(client, ["warm"])
        server.fault = Mixed(10**6)
        embed(client, ["a"])
        server.requests.clear()

        with pytest.raises(errors.InvalidAnswerError, match="another request") as caught:
            embed(client, ["b", "c"])

    assert caught.value.cause == "other request"
    assert len(server.requests) == 2


def test_each_attempt_has_an_id_of_its_own(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server, batch_size=1)
    client.embed_documents(["a", "b", "c"])

    ids = [request.headers["x-request-id"] for request in embedding_server.requests]
    assert len(set(ids)) == len(ids) > 4


def test_ids_of_the_servers_own_switch_the_check_off(embed: Embed) -> None:
    with serve(JSON) as server:
        client = client_of(server)
        embed(client, ["warm"])
        gateway = Mixed(10**6)
        gateway.rename = lambda content: b'{"id": "chatcmpl-7", ' + content[content.index(b'"object"') :]
        server.fault = gateway
        embed(client, ["a"])

        np.testing.assert_allclose(embed(client, ["b"])[0], right("a"), atol=1e-6)  # nobody can know


def test_an_id_of_the_users_own_is_sent_and_nothing_checked(embed: Embed) -> None:
    with serve(JSON) as server:
        embed(client_of(server, default_headers={"x-request-id": "mine"}), ["a"])

        assert {request.headers["x-request-id"] for request in server.requests} == {"mine"}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_other_ids() -> None:
    ids = RequestIds({})
    before, read, write = ids.fresh(), *os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, ids.fresh().encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 100).decode()[:20] != before[:20] == ids.fresh()[:20]


def test_an_id_with_words_around_it_is_ones_own() -> None:
    ids = RequestIds({})
    mine, other = ids.fresh(), ids.fresh()
    ids.check("http://server", mine, f"score-{mine}-0")
    ids.check("http://server", mine, None)

    with pytest.raises(errors.InvalidAnswerError):
        ids.check("http://server", mine, f"embd-{other}")
    assert ids.checks
