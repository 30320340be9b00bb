"""An instruction for one call: every method that takes a query has it, and sends it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from qwen3_vllm import EmbeddingClient, RerankClient, langchain, llama_index
from tests.faults import SocketServer

DOCUMENTS = [Document("d")]
NODES = [NodeWithScore(node=TextNode(text="d"))]
EMBED: dict[str, Callable[..., Any]] = {
    "client": lambda url, **call: EmbeddingClient(base_url=url).embed_queries(["q"], **call),
    "client, async": lambda url, **call: asyncio.run(
        EmbeddingClient(base_url=url).aembed_queries(["q"], **call)
    ),
    "LangChain": lambda url, **call: langchain.Qwen3VLLMEmbeddings(base_url=url).embed_query("q", **call),
    "LangChain, async": lambda url, **call: asyncio.run(
        langchain.Qwen3VLLMEmbeddings(base_url=url).aembed_query("q", **call)
    ),
    "LlamaIndex": lambda url, **call: llama_index.Qwen3VLLMEmbeddings(base_url=url).get_query_embedding(
        "q", **call
    ),
    "LlamaIndex, async": lambda url, **call: asyncio.run(
        llama_index.Qwen3VLLMEmbeddings(base_url=url).aget_query_embedding("q", **call)
    ),
}
RERANK: dict[str, Callable[..., Any]] = {
    "client": lambda url, **call: RerankClient(base_url=url).rerank("q", ["d"], **call),
    "client, async": lambda url, **call: asyncio.run(RerankClient(base_url=url).arerank("q", ["d"], **call)),
    "LangChain": lambda url, **call: langchain.Qwen3VLLMReranker(base_url=url).compress_documents(
        DOCUMENTS, "q", **call
    ),
    "LangChain, async": lambda url, **call: asyncio.run(
        langchain.Qwen3VLLMReranker(base_url=url).acompress_documents(DOCUMENTS, "q", **call)
    ),
    "cross-encoder": lambda url, **call: langchain.Qwen3VLLMCrossEncoder(base_url=url).score(
        [("q", "d")], **call
    ),
    "LlamaIndex": lambda url, **call: llama_index.Qwen3VLLMReranker(base_url=url).postprocess_nodes(
        NODES, query_str="q", **call
    ),
    "LlamaIndex, async": lambda url, **call: asyncio.run(
        llama_index.Qwen3VLLMReranker(base_url=url).apostprocess_nodes(NODES, QueryBundle("q"), **call)
    ),
}


@pytest.mark.parametrize("way", EMBED)
def test_a_query_is_embedded_with_the_calls_instruction(way: str, embedding_server: SocketServer) -> None:
    EMBED[way](embedding_server.base_url, instruction="Mine")
    assert embedding_server.bodies("/v1/embeddings")[-1]["input"] == ["Instruct: Mine\nQuery:q"]


@pytest.mark.parametrize("way", RERANK)
def test_documents_are_ranked_by_the_calls_instruction(way: str, rerank_server: SocketServer) -> None:
    RERANK[way](rerank_server.base_url, instruction="Mine")
    assert "<Instruct>: Mine\n" in rerank_server.bodies("/v1/score")[-1]["text_1"]
