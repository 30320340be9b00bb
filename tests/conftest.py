"""Fixtures of all offline tests."""

from collections.abc import Iterator

import pytest

from .fake_vllm import FakeVLLM
from .faults import SocketServer, serve

ENVIRONMENT = (
    "VLLM_API_KEY",
    "QWEN3_EMBEDDING_URL",
    "QWEN3_RERANKER_URL",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NETRC",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own servers, keys and proxies out of the tests."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def embedding_server() -> Iterator[SocketServer]:
    """An embedding server of the newest vLLM."""
    with serve(FakeVLLM("embedding")) as server:
        yield server


@pytest.fixture
def rerank_server() -> Iterator[SocketServer]:
    """A reranker of the newest vLLM, without a chat template."""
    with serve(FakeVLLM("reranker")) as server:
        yield server
