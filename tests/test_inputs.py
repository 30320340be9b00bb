"""Odd inputs: every public method says what is wrong with them, in an error of the package."""

import asyncio
import enum
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from qwen3_vllm import EmbeddingClient, RerankClient, errors, langchain, llama_index

NOWHERE = "http://127.0.0.1:1"  # nothing here may be sent
INDEX = llama_index.Qwen3VLLMEmbeddings(base_url=NOWHERE)
CACHED = llama_index.Qwen3VLLMEmbeddings(base_url=NOWHERE, embeddings_cache=SimpleKVStore())
CHAIN = langchain.Qwen3VLLMEmbeddings(base_url=NOWHERE)
CHAIN_RERANKER = langchain.Qwen3VLLMReranker(base_url=NOWHERE)
CROSS = langchain.Qwen3VLLMCrossEncoder(base_url=NOWHERE)
INDEX_RERANKER = llama_index.Qwen3VLLMReranker(base_url=NOWHERE)
EMBED, RERANK = EmbeddingClient(base_url=NOWHERE), RerankClient(base_url=NOWHERE)


class Series:
    """As of pandas: iterable, countable, no Sequence, and not to be compared as a whole."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: object) -> str:
        return "a"

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a Series is ambiguous")


ODD = {
    "0-d array": lambda: np.array("a"),
    "0-d object array": lambda: np.array(None, dtype=object),
    "string": lambda: "a text",
    "bytes": lambda: b"a text",
    "bytearray": lambda: bytearray(b"a"),
    "None": lambda: None,
    "number": lambda: 3,
    "dict": lambda: {"a": "b"},
    "set": lambda: {"a"},
    "generator": lambda: (text for text in "ab"),
    "series": Series,
    "list of bytes": lambda: [b"a"],
    "list of lists": lambda: [["a"]],
    "2-d array": lambda: np.array([["a", "b"]]),
    "array of numbers": lambda: np.arange(2),
}
LISTS: dict[str, Callable[[Any], Any]] = {
    "queries": lambda odd: EMBED.embed_queries(odd),
    "documents": lambda odd: EMBED.embed_documents(odd),
    "documents, async": lambda odd: asyncio.run(EMBED.aembed_documents(odd)),
    "lists": lambda odd: EMBED.embed_documents_as_lists(odd),
    "score": lambda odd: RERANK.score("q", odd),
    "rerank": lambda odd: RERANK.rerank("q", odd),
    "rerank, async": lambda odd: asyncio.run(RERANK.arerank("q", odd)),
    "LangChain": lambda odd: CHAIN.embed_documents(odd),
    "LangChain, compress": lambda odd: CHAIN_RERANKER.compress_documents(odd, "q"),
    "LangChain, rerank": lambda odd: CHAIN_RERANKER.rerank(odd, "q"),
    "LangChain, pairs": lambda odd: CROSS.score(odd),
    "LlamaIndex": lambda odd: INDEX.get_text_embedding_batch(odd),
    "LlamaIndex, progress": lambda odd: INDEX.get_text_embedding_batch(odd, show_progress=True),
    "LlamaIndex, nodes": lambda odd: INDEX_RERANKER.postprocess_nodes(odd, query_str="q"),
}
ONES: dict[str, Callable[[Any], Any]] = {
    "score": lambda odd: RERANK.score(odd, ["d"]),
    "rerank": lambda odd: RERANK.rerank(odd, ["d"]),
    "LangChain": lambda odd: CHAIN.embed_query(odd),
    "LangChain, compress": lambda odd: CHAIN_RERANKER.compress_documents([Document("d")], odd),
    "LlamaIndex": lambda odd: INDEX.get_query_embedding(odd),
    "LlamaIndex, cached": lambda odd: CACHED.get_query_embedding(odd),
    "LlamaIndex, cached text": lambda odd: CACHED.get_text_embedding(odd),
    "LlamaIndex, nodes": lambda odd: INDEX_RERANKER.postprocess_nodes(
        [NodeWithScore(node=TextNode(text="d"))], query_str=odd
    ),
    "instruction": lambda odd: EMBED.embed_queries(["q"], instruction=odd),
    "reranking's instruction": lambda odd: RERANK.score("q", ["d"], instruction=odd),
    "LangChain's instruction": lambda odd: CHAIN.embed_query("q", instruction=odd),
    "LlamaIndex's instruction": lambda odd: CACHED.get_query_embedding("q", instruction=odd),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("method", LISTS)
def test_what_is_no_list_of_texts_is_told(method: str, odd: str) -> None:
    with pytest.raises(errors.InputError):
        LISTS[method](ODD[odd]())


@pytest.mark.parametrize("odd", sorted(set(ODD) - {"string", "None"}))
@pytest.mark.parametrize("method", ONES)
def test_what_is_no_text_is_told(method: str, odd: str) -> None:
    with pytest.raises(errors.InputError):
        ONES[method](ODD[odd]())


@pytest.mark.parametrize("top_n", ["3", 2.0, -1, [1]])
def test_a_top_n_that_is_no_count_is_told(top_n: Any) -> None:
    with pytest.raises(errors.InputError, match="top_n must be 0 or more"):
        RERANK.rerank("q", ["a"], top_n=top_n)


@pytest.mark.parametrize(
    ("bundle", "text", "words"),
    [
        (None, None, "needs a query"),
        ("q", None, "pass a string as query_str"),
        (QueryBundle("q"), "q", "not both"),
    ],
)
def test_nodes_need_one_query(bundle: Any, text: Any, words: str) -> None:
    with pytest.raises(errors.InputError, match=words):
        INDEX_RERANKER.postprocess_nodes([], query_bundle=bundle, query_str=text)


@pytest.mark.parametrize("value", [None, "high", float("nan"), [1.0, 2.0]])
def test_a_mix_that_is_no_number_is_told(value: Any, rerank_server: Any) -> None:
    reranker = langchain.Qwen3VLLMReranker(base_url=rerank_server.base_url, combine=lambda score, _: value)

    with pytest.raises(errors.InputError, match="for document 0, not a number"):
        reranker.compress_documents([Document("d")], "q")


def test_a_string_enum_is_its_value(embedding_server: Any) -> None:
    class Topic(str, enum.Enum):  # noqa: UP042 - a StrEnum formats as its value anyway
        TEA = "green tea"

    EmbeddingClient(base_url=embedding_server.base_url).embed_queries([Topic.TEA], instruction="i")

    assert embedding_server.bodies("/v1/embeddings")[-1]["input"] == ["Instruct: i\nQuery:green tea"]
