"""LangChain's own standard tests, on real servers, with nothing left out."""

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from qwen3_vllm.langchain import Qwen3VLLMEmbeddings, Qwen3VLLMReranker, Qwen3VLLMRetriever

from .conftest import RunningServer

PASSAGES = (
    "The capital of China is Beijing.",
    "法国的首都是巴黎。",
    "Bananas are yellow.",
    "Gravity attracts two bodies towards each other.",
    "光合作用把光能变成化学能。",
)


class TestEmbeddingsFromOptions(EmbeddingsUnitTests):
    """Construction, from arguments and from the environment."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3VLLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "qwen3_embedding"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"QWEN3_EMBEDDING_URL": "http://gpu.example:9000/v1", "VLLM_API_KEY": "a-key"},
            {},
            {"base_url": "http://gpu.example:9000/v1", "api_key": "a-key"},
        )


class TestEmbeddingsOnAServer(EmbeddingsIntegrationTests):
    """Embedding, sync and async."""

    @pytest.fixture(autouse=True)
    def _server(self, embedding_server: RunningServer) -> None:
        self._base_url = embedding_server.base_url

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3VLLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"base_url": self._base_url}


class TestRetriever(RetrieversIntegrationTests):
    """Search and rerank, `k` in the constructor and per call."""

    @pytest.fixture(autouse=True)
    def _servers(self, embedding_server: RunningServer, reranker_server: RunningServer) -> None:
        store = InMemoryVectorStore(Qwen3VLLMEmbeddings(base_url=embedding_server.base_url))
        store.add_documents([Document(page_content=text) for text in PASSAGES])
        self._params = {
            "retriever": store.as_retriever(search_kwargs={"k": len(PASSAGES)}),
            "reranker": Qwen3VLLMReranker(base_url=reranker_server.base_url),
        }

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return Qwen3VLLMRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self._params

    @property
    def retriever_query_example(self) -> str:
        return "What is the capital of China?"
