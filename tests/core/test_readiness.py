"""Waiting until a server answers a real request."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from tests.fake_vllm import FakeVLLM
from tests.faults import always, first, instead, reset, serve

Client = EmbeddingClient | RerankClient
Wait = Callable[[Client, float], None]


@pytest.fixture(params=["sync", "async"])
def wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Wait on a clock that moves by what is slept."""
    slept = [0.0]
    real = time.monotonic

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("qwen3_vllm._core.readiness.monotonic", lambda: real() + sum(slept))
    if request.param == "sync":
        monkeypatch.setattr("qwen3_vllm._core.client.sleep", slept.append)
        return lambda client, timeout: client.wait_until_ready(timeout)
    monkeypatch.setattr("qwen3_vllm._core.client.asleep", sleep)
    return lambda client, timeout: asyncio.run(client.await_until_ready(timeout))


def kinds() -> Any:
    return pytest.mark.parametrize(
        ("make", "server"),
        [(EmbeddingClient, FakeVLLM("embedding")), (RerankClient, FakeVLLM("reranker"))],
        ids=["embedding", "reranker"],
    )


@kinds()
@pytest.mark.parametrize("fault", [reset, instead(503), instead(404, {"detail": "Not Found"}), instead(502)])
def test_it_returns_when_a_request_is_answered(make: Any, server: FakeVLLM, fault: Any, wait: Wait) -> None:
    with serve(server) as running:
        running.fault = first(4, fault)
        client = make(base_url=running.base_url)
        wait(client, 500)
        assert len(running.requests) > 5
        assert client.usage.requests == 0


def test_what_is_the_matter_is_said_at_last_and_once_meanwhile(
    wait: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(errors.RequestTimeoutError, match=r"not ready within 60 s.*Cannot connect"):
        wait(EmbeddingClient(base_url="http://127.0.0.1:9"), 60)

    (told,) = caplog.messages
    assert told.startswith("Waiting for the server: Cannot connect")


@pytest.mark.parametrize(
    ("server", "make", "error"),
    [
        (FakeVLLM("embedding", api_key="a-key"), EmbeddingClient, errors.AuthenticationError),
        (FakeVLLM("chat"), EmbeddingClient, errors.WrongServerError),
        (FakeVLLM("embedding"), RerankClient, errors.WrongServerError),
        (FakeVLLM("constant"), RerankClient, errors.WrongServerError),
    ],
)
def test_what_waiting_does_not_mend_is_raised_at_once(
    server: FakeVLLM, make: Any, error: type[Exception], wait: Wait
) -> None:
    with serve(server) as running, pytest.raises(error):
        wait(make(base_url=running.base_url), 500)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_wait_needs_time(timeout: float, wait: Wait) -> None:
    with pytest.raises(errors.ConfigurationError, match="timeout must be above 0"):
        wait(EmbeddingClient(), timeout)


def test_a_server_that_stays_full_is_waited_for_to_the_end(wait: Wait) -> None:
    with serve(FakeVLLM("embedding")) as running:
        running.fault = always(instead(503))
        with pytest.raises(errors.RequestTimeoutError, match="503"):
            wait(EmbeddingClient(base_url=running.base_url), 30)
