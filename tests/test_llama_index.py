"""LlamaIndex's batches: followed where anything listens, sent at once where nothing does."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span_handlers import SimpleSpanHandler
from pydantic import Field

from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings
from tests.fake_vllm import END_TOKEN, FakeVLLM
from tests.faults import SocketServer

TEXTS = [f"text {number}" for number in range(5)]
Batch = Callable[[Qwen3VLLMEmbeddings, list[str]], list[Embedding]]


class Heard(BaseEventHandler):
    """Keeps the events it is told of."""

    events: list[BaseEvent] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.events.append(event)


class Limiter:
    """Counts what it lets through."""

    passed = 0

    def acquire(self) -> None:
        self.passed += 1

    async def async_acquire(self) -> None:
        self.passed += 1


@pytest.fixture(params=["sync", "async"])
def batch(request: pytest.FixtureRequest) -> Batch:
    if request.param == "sync":
        return lambda model, texts: model.get_text_embedding_batch(texts)
    return lambda model, texts: asyncio.run(model.aget_text_embedding_batch(texts))


def model(server: SocketServer, **options: Any) -> Qwen3VLLMEmbeddings:
    return Qwen3VLLMEmbeddings(base_url=server.base_url, embed_batch_size=2, **options)


def assert_right(vectors: list[Embedding]) -> None:
    expected = [FakeVLLM("embedding").vector(text + END_TOKEN) for text in TEXTS]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


@contextmanager
def root(**handlers: Any) -> Iterator[None]:
    """Put handlers beside those of the root dispatcher, where tracing tools put theirs."""
    dispatcher = get_dispatcher()
    before = {name: getattr(dispatcher, name) for name in handlers}
    for name, handler in handlers.items():
        setattr(dispatcher, name, [*before[name], handler])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(dispatcher, name, value)


def requests_of(server: SocketServer) -> list[list[str]]:
    """Texts of each request, without the client's first question, `a`."""
    return [body["input"] for body in server.bodies("/v1/embeddings") if body["input"] != ["a"]]


def test_all_texts_go_at_once_where_nothing_follows(embedding_server: SocketServer, batch: Batch) -> None:
    assert_right(batch(model(embedding_server), TEXTS))
    assert requests_of(embedding_server) == [TEXTS]


def test_no_texts_are_no_request(embedding_server: SocketServer, batch: Batch) -> None:
    assert batch(model(embedding_server), []) == []
    assert requests_of(embedding_server) == []


def test_event_handlers_hear_of_every_handover(embedding_server: SocketServer, batch: Batch) -> None:
    heard = Heard()
    with root(event_handlers=heard):
        assert_right(batch(model(embedding_server), TEXTS))
    ends = [event for event in heard.events if isinstance(event, EmbeddingEndEvent)]
    assert [event.chunks for event in ends] == [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
    assert_right([vector for event in ends for vector in event.embeddings])
    assert sum(isinstance(event, EmbeddingStartEvent) for event in heard.events) == 3


def test_span_handlers_see_the_batch(embedding_server: SocketServer, batch: Batch) -> None:
    spans = SimpleSpanHandler()
    with root(span_handlers=spans):
        assert_right(batch(model(embedding_server), TEXTS))
    assert any("get_text_embedding_batch" in span.id_ for span in spans.completed_spans)


def test_callbacks_are_called(embedding_server: SocketServer, batch: Batch) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    assert_right(batch(model(embedding_server, callback_manager=CallbackManager([debug])), TEXTS))
    assert len(debug.get_event_pairs(CBEventType.EMBEDDING)) == 3


def test_a_rate_limiter_lets_every_handover_through(embedding_server: SocketServer, batch: Batch) -> None:
    limiter = Limiter()
    assert_right(batch(model(embedding_server, rate_limiter=limiter), TEXTS))
    assert limiter.passed == 3


def test_a_progress_bar_is_drawn(embedding_server: SocketServer, capfd: pytest.CaptureFixture[str]) -> None:
    assert_right(model(embedding_server).get_text_embedding_batch(TEXTS, show_progress=True))
    assert "Generating embeddings" in capfd.readouterr().err
