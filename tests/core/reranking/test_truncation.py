"""Cutting documents where something of the way fails, or where nobody counts tokens."""

from collections.abc import Callable

import numpy as np
import pytest

from qwen3_vllm import RerankClient, errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from tests.fake_vllm import FakeVLLM
from tests.faults import Fault, Request, SocketServer, always, honest, instead, serve

UNCOUNTED = FakeVLLM(missing=("/tokenize", "/detokenize"))
BUSY = instead(503, {"error": {"message": "busy", "type": "x", "code": 503}})


def client_of(server: SocketServer, **options: object) -> RerankClient:
    return RerankClient(base_url=server.base_url, **{"timeout": 30, "max_retries": 0, **options})


def right(documents: list[str], query: str = "q") -> list[float]:
    """The scores of documents in which a byte is a token."""
    fake = FakeVLLM()
    return [fake.probability(prompts.rerank_prompt(query, d, DEFAULT_INSTRUCTION)) for d in documents]


def where(part: str, fault: Fault, path: str = "/tokenize") -> Callable[[Request], Fault]:
    """Spoil what is asked of this path about a text with `part` in it."""
    return lambda request: fault if request.path == path and part.encode() in request.body else honest


# --- max_tokens_per_doc --------------------------------------------------------------------------------


def test_max_tokens_per_doc_is_kept_by_bytes_where_nobody_counts() -> None:
    with serve(UNCOUNTED) as server:
        scores = client_of(server, max_tokens_per_doc=10).score("q", ["0123456789x", "short"])

    np.testing.assert_allclose(scores, right(["0123456789", "short"]), atol=1e-6)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_max_tokens_per_doc_is_kept_when_a_route_is_lost(rerank_server: SocketServer, path: str) -> None:
    client = client_of(rerank_server, max_tokens_per_doc=10)
    client.score("q", ["0123456789x"])
    rerank_server.fault = always(instead(404), path)

    scores = client.score("q", ["abcdefghijklm", "short"])

    np.testing.assert_allclose(scores, right(["abcdefghij", "short"]), atol=1e-6)


def test_a_document_that_a_busy_server_does_not_count_is_the_only_one_to_fail(
    rerank_server: SocketServer,
) -> None:
    client = client_of(rerank_server, max_tokens_per_doc=10)
    client.score("q", ["0123456789x"])
    rerank_server.fault = where("abc", BUSY)

    with pytest.raises(errors.OverloadedError) as caught:
        client.score("q", ["0123456789x", "abcdefghijklm"])

    assert list(caught.value.errors) == [1]
    assert caught.value.partial is not None
    np.testing.assert_allclose(caught.value.partial[0], right(["0123456789"])[0], atol=1e-6)


# --- the context ---------------------------------------------------------------------------------------


def test_an_instruction_that_is_not_counted_fails_the_call(rerank_server: SocketServer) -> None:
    client = client_of(rerank_server)
    client.score("q", ["x" * 3000])
    rerank_server.fault = where("find it", BUSY)

    with pytest.raises(errors.OverloadedError):
        client.score("q", ["x" * 3000], instruction="find it")


@pytest.mark.parametrize("part", ["yyy", '<Query>: second\\n<Document>:"'], ids=["document", "query"])
def test_a_pair_of_which_a_part_is_not_counted_is_the_only_one_to_fail(
    rerank_server: SocketServer, part: str
) -> None:
    client = client_of(rerank_server)
    client.score("q", ["x" * 3000])
    rerank_server.fault = where(part, BUSY)

    with pytest.raises(errors.OverloadedError) as caught:
        client.score(["first", "second"], ["x" * 3000, "y" * 3000])

    assert list(caught.value.errors) == [1]


def test_without_detokenize_a_server_that_takes_no_tokens_gets_a_cut_by_bytes() -> None:
    fake = FakeVLLM(version="0.10.0", missing=("/detokenize",))
    room = 2047 - len(fake.encode(prompts.rerank_prompt("q", "", DEFAULT_INSTRUCTION)))
    with serve(fake) as server:
        scores = client_of(server).score("q", ["x" * 3000])

    np.testing.assert_allclose(scores, right(["x" * room]), atol=1e-6)


def test_without_truncation_and_counts_the_server_says_what_is_too_long() -> None:
    with serve(UNCOUNTED) as server, pytest.raises(errors.TooLongError) as caught:
        client_of(server, truncate=False).score("q", ["a", "x" * 5000])

    assert list(caught.value.errors) == [1]
    assert caught.value.partial is not None
    np.testing.assert_allclose(caught.value.partial[0], right(["a"])[0], atol=1e-6)


def test_a_query_that_leaves_no_room_is_told_without_counts_too() -> None:
    with serve(UNCOUNTED) as server:
        with pytest.raises(errors.TooLongError, match="the query is too long"):
            client_of(server).score("q" * 3000, ["a"])
        with pytest.raises(errors.TooLongError, match="query") as caught:
            client_of(server).score(["q", "q" * 3000], ["a", "b"])

    assert list(caught.value.errors) == [1]
