"""embed_stream, and the pipeline under it: order, bounded reading ahead, failures, ends."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, InputError, Qwen3VLLMError, ServerUnreachableError
from qwen3_vllm.bulk import embed_stream, pipeline
from qwen3_vllm.bulk.pipeline import ahead_of, chunked, pipelined
from tests.bulk.runs import Canned
from tests.faults import SocketServer

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def client(server: SocketServer) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url)


@pytest.mark.parametrize(("max_concurrency", "chunks"), [(32, 3), (4, 3), (128, 9)])
def test_enough_is_read_ahead_to_fill_the_client(max_concurrency: int, chunks: int) -> None:
    assert ahead_of(EmbeddingClient(max_concurrency=max_concurrency)) == chunks


def test_yields_ids_and_vectors_in_order(client: EmbeddingClient, canned: Canned) -> None:
    chunks = list(embed_stream(((n, f"text {n}") for n in range(37)), client))
    assert [id for ids, _ in chunks for id in ids] == list(range(37))
    expected = [canned.vector(f"text {n}") for n in range(37)]
    np.testing.assert_allclose(np.concatenate([vectors for _, vectors in chunks]), expected, rtol=1e-6)


def test_one_warning_says_how_many_were_cut_in_all(
    embedding_server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["x" * 3000 if n % 5 == 0 else "short" for n in range(37)]
    client = EmbeddingClient(base_url=embedding_server.base_url)

    assert sum(len(ids) for ids, _ in embed_stream(enumerate(texts), client)) == 37

    assert caplog.messages == [
        "8 of 37 documents had to be cut to the server's 2048 tokens; the longest had 3001"
    ]


def test_of_nothing_is_nothing(client: EmbeddingClient) -> None:
    assert list(embed_stream([], client)) == []


def test_reads_only_a_little_ahead(client: EmbeddingClient) -> None:
    read = []

    def documents() -> Iterator[tuple[int, str]]:
        for n in range(1000):
            read.append(n)
            yield n, f"text {n}"

    stream = embed_stream(documents(), client)
    next(stream)
    assert len(read) <= 3 * 10 + 1
    stream.close()


def test_a_bad_document_goes_to_on_failure_and_the_rest_is_yielded(client: EmbeddingClient) -> None:
    failed: list[tuple[str, Qwen3VLLMError]] = []
    documents = [("a", "good"), ("b", "\ud800"), ("c", "also good")]
    ((ids, vectors),) = embed_stream(documents, client, on_failure=lambda id, e: failed.append((id, e)))
    assert ids == ["a", "c"]
    assert vectors.shape == (2, 8)
    ((id, error),) = failed
    assert id == "b"
    assert isinstance(error, InputError)


def test_a_bad_document_ends_it_without_on_failure(client: EmbeddingClient) -> None:
    with pytest.raises(InputError, match="lone surrogate"):
        list(embed_stream([("a", "\ud800")], client))


def test_a_dead_server_ends_it(client: EmbeddingClient) -> None:
    dead = EmbeddingClient(base_url="http://127.0.0.1:9", max_retries=0)
    with pytest.raises(ServerUnreachableError):
        list(embed_stream([("a", "text")], dead, on_failure=lambda id, error: None))


async def test_runs_inside_an_event_loop(client: EmbeddingClient) -> None:
    assert len(list(embed_stream([("a", "text")], client))) == 1


def test_leaves_no_thread_when_it_is_closed_early(client: EmbeddingClient) -> None:
    stream = embed_stream(((n, str(n)) for n in range(100)), client)
    next(stream)
    stream.close()
    assert "qwen3-vllm-bulk" not in [thread.name for thread in threading.enumerate()]


def test_chunks_are_bounded_by_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CHUNK_CHARACTERS", 10)
    assert list(chunked(["aaaa", "bbbb", "cccc", "d" * 20, "e"], len)) == [
        ["aaaa", "bbbb"],
        ["cccc"],
        ["d" * 20],
        ["e"],
    ]


def test_three_run_at_once_and_results_keep_their_order() -> None:
    running = peak = 0
    three = asyncio.Event()

    async def work(n: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        if running == 3:
            three.set()
        await asyncio.wait_for(three.wait(), 60)
        await asyncio.sleep(0.01 if n % 2 == 0 else 0)
        running -= 1
        return n

    assert list(pipelined(range(10), work)) == list(range(10))
    assert peak == 3


def test_an_error_cancels_what_runs() -> None:
    cancelled = threading.Event()

    async def work(n: int) -> None:
        if n == 0:
            await asyncio.sleep(0.02)
            raise InputError("bad")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(InputError):
        list(pipelined(range(5), work))
    assert cancelled.is_set()


@pytest.mark.parametrize("document", ["ab", ("a", "b", "c"), 5])
def test_a_document_that_is_not_a_pair_is_refused(document: object, client: EmbeddingClient) -> None:
    with pytest.raises(InputError, match=r"document 1 must be \(id, text\)"):
        list(embed_stream([(0, "a"), document], client))  # type: ignore[arg-type]
