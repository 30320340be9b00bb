"""Whoever calls, one warning says what was cut."""

from collections.abc import Callable

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from qwen3_vllm import langchain, llama_index
from tests.fake_vllm import FakeVLLM
from tests.faults import serve

TEXTS = ["x" * 3000, "short", "y" * 4000]
NODES = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]

EMBED: dict[str, Callable[[str], object]] = {
    "langchain": lambda url: langchain.Qwen3VLLMEmbeddings(base_url=url).embed_documents(TEXTS),
    "llama-index": lambda url: llama_index.Qwen3VLLMEmbeddings(base_url=url).get_text_embedding_batch(TEXTS),
}
RERANK: dict[str, Callable[[str], object]] = {
    "langchain": lambda url: langchain.Qwen3VLLMReranker(base_url=url).compress_documents(
        [Document(text) for text in TEXTS], "q"
    ),
    "llama-index": lambda url: llama_index.Qwen3VLLMReranker(base_url=url).postprocess_nodes(
        NODES, query_str="q"
    ),
}


@pytest.mark.parametrize("embed", EMBED.values(), ids=EMBED)
def test_of_documents_to_embed(embed: Callable[[str], object], caplog: pytest.LogCaptureFixture) -> None:
    with serve(FakeVLLM("embedding")) as server:
        embed(server.base_url)

    assert caplog.messages == [
        "2 of 3 documents had to be cut to the server's 2048 tokens; the longest had 4001"
    ]


@pytest.mark.parametrize("rerank", RERANK.values(), ids=RERANK)
def test_of_documents_to_rank(rerank: Callable[[str], object], caplog: pytest.LogCaptureFixture) -> None:
    with serve(FakeVLLM()) as server:
        rerank(server.base_url)

    (message,) = caplog.messages
    assert message.startswith("2 of 3 documents had to be cut so that prompts fit the server's 2048 tokens;")
