"""Usage: tokens and requests of the texts that a caller sent, each once, whatever it took."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from qwen3_vllm import EmbeddingClient, RerankClient, Usage, count_usage
from qwen3_vllm.errors import Qwen3VLLMError
from tests.conftest import Embed, Score
from tests.fake_vllm import FakeVLLM
from tests.faults import SocketServer, always, first, instead, serve

TEXTS = ["one", "two", "three", "four"]
TOKENS = sum(map(len, TEXTS)) + len(TEXTS)  # a token a byte, and the end token


def embedding() -> FakeVLLM:
    return FakeVLLM("embedding", version="0.12.0")  # base64, which comes with `usage`


def client_of(server: SocketServer, **options: int) -> EmbeddingClient:
    client = EmbeddingClient(base_url=server.base_url, batch_size=2, **options)
    client.embed_queries(["x"], instruction="")  # learns what the server is
    client.reset_usage()
    return client


def test_each_request_and_token_counts_once(embed: Embed) -> None:
    with serve(embedding()) as server:
        client = client_of(server)
        embed(client, [*TEXTS, *TEXTS])
        assert client.usage == Usage(2, TOKENS)


def test_questions_about_the_server_do_not_count() -> None:
    with serve(embedding()) as server:
        client = EmbeddingClient(base_url=server.base_url)
        client.cache_namespace("document")
        assert client.usage == Usage()


def test_counting_tokens_of_long_texts_is_not_usage() -> None:
    with serve(FakeVLLM("embedding", version="0.12.0", context=20)) as server:
        client = client_of(server)
        client.embed_documents(["x" * 100])
        assert client.usage == Usage(1, 19)  # cut to what this release takes


def test_what_is_sent_again_counts_once(embed: Embed) -> None:
    with serve(embedding()) as server:
        client = client_of(server)
        server.fault = first(2, instead(500), "/v1/embeddings")
        embed(client, TEXTS)
        assert client.usage == Usage(2, TOKENS)


def test_what_is_halved_counts_once(embed: Embed) -> None:
    with serve(embedding()) as server:
        client = client_of(server)
        server.fault = first(1, instead(413), "/v1/embeddings")
        embed(client, TEXTS)
        assert client.usage == Usage(3, TOKENS)


def test_what_fails_does_not_count() -> None:
    with serve(embedding()) as server:
        client = client_of(server, max_retries=0)
        server.fault = always(instead(500), "/v1/embeddings")
        with pytest.raises(Qwen3VLLMError):
            client.embed_documents(TEXTS)
        assert client.usage == Usage()


def test_responses_without_tokens_are_told_apart(embed: Embed) -> None:
    for server in (FakeVLLM("embedding"), FakeVLLM("embedding", version="0.12.0", counts=False)):
        with serve(server) as running:
            client = client_of(running)
            embed(client, TEXTS)
            assert client.usage == Usage(2, 0, uncounted=2)


def test_scores_are_counted(score: Score) -> None:
    with serve(FakeVLLM("reranker")) as server:
        client = RerankClient(base_url=server.base_url)
        score(client, "a query", ["one", "two"])
        used = client.usage
        score(client, "a query", ["one", "two"])

    assert used.requests == 1
    assert used.tokens > 100  # Qwen's prompt, twice
    assert client.usage == used + used


def test_threads_and_tasks_are_counted() -> None:
    with serve(embedding()) as server:
        client = client_of(server)
        threads = [threading.Thread(target=client.embed_documents, args=(TEXTS,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def together() -> None:
            await asyncio.gather(*(client.aembed_documents(TEXTS) for _ in range(8)))

        asyncio.run(together())
    assert client.usage == Usage(32, 16 * TOKENS)


def in_a_task(client: EmbeddingClient) -> None:
    async def begin() -> None:
        await asyncio.create_task(client.aembed_documents(TEXTS))

    asyncio.run(begin())


def in_a_thread(client: EmbeddingClient) -> None:
    asyncio.run(asyncio.to_thread(client.embed_documents, TEXTS))


@pytest.mark.parametrize("call", [lambda client: client.embed_documents(TEXTS), in_a_task, in_a_thread])
def test_a_block_counts_what_began_in_it(call: Callable[[EmbeddingClient], None]) -> None:
    with serve(embedding()) as server:
        client = client_of(server)
        with count_usage() as outer:
            call(client)
            with count_usage() as inner:
                call(client)
        call(client)

    assert inner.usage == Usage(2, TOKENS)
    assert outer.usage == Usage(4, 2 * TOKENS)
    assert client.usage == Usage(6, 3 * TOKENS)
