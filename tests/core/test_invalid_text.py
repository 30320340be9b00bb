"""`invalid_text`: what becomes of texts that UTF-8 cannot hold, in clients and adapters."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from qwen3_vllm import EmbeddingClient, RerankClient, errors, langchain, llama_index
from tests.faults import SocketServer

BAD, SENT = "a \ud800 b", "a \ufffd b"


@pytest.mark.parametrize(
    "embed",
    [
        lambda url, **o: EmbeddingClient(base_url=url, **o).embed_documents(["fine", BAD]),
        lambda url, **o: EmbeddingClient(base_url=url, **o).embed_queries(["fine", BAD], instruction=""),
        lambda url, **o: langchain.Qwen3VLLMEmbeddings(base_url=url, **o).embed_documents(["fine", BAD]),
        lambda url, **o: llama_index.Qwen3VLLMEmbeddings(base_url=url, **o).get_text_embedding_batch(
            ["fine", BAD]
        ),
    ],
)
def test_a_lone_surrogate_is_sent_as_the_replacement_character(
    embed: Callable[..., Any], embedding_server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(errors.InputError, match="lone surrogate"):
        embed(embedding_server.base_url)
    with caplog.at_level(logging.WARNING, "qwen3_vllm"):
        assert len(embed(embedding_server.base_url, invalid_text="replace")) == 2

    assert embedding_server.requests[-1].json["input"] == ["fine", SENT]
    assert [record.message for record in caplog.records] == [
        "1 of 2 texts had lone surrogates, sent as U+FFFD"
    ]


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=BAD), score=0.0)]


@pytest.mark.parametrize(
    "rerank",
    [
        lambda url, **o: RerankClient(base_url=url, **o).rerank(BAD, [BAD]),
        lambda url, **o: RerankClient(base_url=url, **o).score([BAD], [BAD]),
        lambda url, **o: langchain.Qwen3VLLMReranker(base_url=url, **o).compress_documents(
            [Document(BAD)], BAD
        ),
        lambda url, **o: llama_index.Qwen3VLLMReranker(base_url=url, **o).postprocess_nodes(
            nodes(), query_str=BAD
        ),
    ],
)
def test_queries_and_documents_are_said_in_one_line(
    rerank: Callable[..., Any], rerank_server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(errors.InputError, match="lone surrogate"):
        rerank(rerank_server.base_url)
    with caplog.at_level(logging.WARNING, "qwen3_vllm"):
        assert len(rerank(rerank_server.base_url, invalid_text="replace")) == 1

    assert [record.message for record in caplog.records] == [
        "2 of 2 texts had lone surrogates, sent as U+FFFD"
    ]


@pytest.mark.parametrize(("text", "sent"), [("\ud83d\ude00!", "😀!"), ("\ude00\ud83d", "\ufffd\ufffd")])
def test_a_pair_of_surrogates_is_its_character(text: str, sent: str, embedding_server: SocketServer) -> None:
    EmbeddingClient(base_url=embedding_server.base_url, invalid_text="replace").embed_documents([text])

    assert embedding_server.requests[-1].json["input"] == [sent]


def test_what_is_not_a_string_stays_an_error(embedding_server: SocketServer) -> None:
    client = EmbeddingClient(base_url=embedding_server.base_url, invalid_text="replace")

    with pytest.raises(errors.InputError, match="document 1 is not a string but int"):
        client.embed_documents(["fine", 4])  # type: ignore[list-item]
