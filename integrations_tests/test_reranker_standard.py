"""Our own standard tests for rerankers, on real servers."""

from typing import Any

import pytest
from langchain_core.documents import BaseDocumentCompressor

from qwen3_vllm.langchain import Qwen3VLLMReranker
from qwen3_vllm.testing import RerankerTests

from .conftest import RunningServer


class TestOnABareServer(RerankerTests):
    """A server without a chat template."""

    @pytest.fixture(autouse=True)
    def _server(self, reranker_server: RunningServer) -> None:
        self._base_url = reranker_server.base_url

    @property
    def reranker_constructor(self) -> type[BaseDocumentCompressor]:
        return Qwen3VLLMReranker

    @property
    def reranker_constructor_params(self) -> dict[str, Any]:
        return {"base_url": self._base_url}

    @property
    def secrets(self) -> dict[str, Any]:
        return {"api_key": "a-secret-key"}


class TestOnATemplatedServer(TestOnABareServer):
    """A server with our chat template."""

    @pytest.fixture(autouse=True)
    def _server(self, templated_reranker_server: RunningServer) -> None:
        self._base_url = templated_reranker_server.base_url
