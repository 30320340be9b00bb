"""Fixtures of all offline tests."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, errors
from qwen3_vllm._core.http import load, retries
from qwen3_vllm._core.http.several import group
from tests.fake_vllm import FakeVLLM
from tests.faults import SocketServer, serve

Embed = Callable[[EmbeddingClient, Sequence[str]], np.ndarray]
Score = Callable[..., np.ndarray]

ENVIRONMENT = (
    "VLLM_API_KEY",
    "QWEN3_EMBEDDING_URL",
    "QWEN3_RERANKER_URL",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NETRC",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run all tests in three processes per two cores, as some wait for a clock; some tests in this one."""
    whole = [Path(arg).resolve() for arg in config.args] == [Path(__file__).parent]
    selected = config.option.keyword or config.option.markexpr or config.option.lf
    return 0 if selected or not whole else -(-3 * (os.cpu_count() or 1) // 2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from the modules, which stay: it goes through all of them each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own servers, keys and proxies out of the tests."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def library_logs() -> Iterator[None]:
    """Undo what a command did to the library's logger."""
    yield
    for logger in map(logging.getLogger, ("qwen3_vllm", "qwen3_vllm.bulk")):
        if logger.level:  # to set one costs a walk over all loggers, of which the frameworks have hundreds
            logger.setLevel(logging.NOTSET)


@pytest.fixture
def terminal_signals() -> Iterator[None]:
    """Hear Ctrl-C and hang-ups, which nohup and & ignore; processes started meanwhile do so too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off as always, fifty times faster."""
    real = retries.retry_delay

    def quick(error: errors.Qwen3VLLMError, attempt: int) -> float | None:
        delay = real(error, attempt)
        return None if delay is None else delay / 50

    monkeypatch.setattr(load, "retry_delay", quick)
    monkeypatch.setattr(group, "retry_delay", quick)


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Embed:
    """`embed_documents` of a client, or its async twin."""
    if request.param == "sync":
        return lambda client, texts: client.embed_documents(texts)
    return lambda client, texts: asyncio.run(client.aembed_documents(texts))


@pytest.fixture(params=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    """`score` of a client, or its async twin."""
    if request.param == "sync":
        return lambda client, *args, **options: client.score(*args, **options)
    return lambda client, *args, **options: asyncio.run(client.ascore(*args, **options))
