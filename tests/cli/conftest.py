"""Servers where the commands look for them."""

import pytest

from tests.faults import SocketServer


@pytest.fixture
def both_servers(
    embedding_server: SocketServer, rerank_server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN3_EMBEDDING_URL", embedding_server.base_url)
    monkeypatch.setenv("QWEN3_RERANKER_URL", rerank_server.base_url)
