"""vLLM's spans join the trace of the call whose requests they are of."""

import time
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core.telemetry import spans

from .conftest import RunningServer, TraceReceiver

SECONDS = 60.0  # vLLM exports its spans every 5


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the exporter of an application gets, for this test alone."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    spans._instruments.cache_clear()
    yield exporter
    spans._instruments.cache_clear()


def embed(url: str) -> None:
    EmbeddingClient(base_url=url, batch_size=2).embed_documents(["one", "two", "three"])


def rerank(url: str) -> None:
    RerankClient(base_url=url).rerank("which is one?", ["one", "two"])


@pytest.mark.parametrize(("call", "texts"), [(embed, 3), (rerank, 2)])
def test_vllms_spans_are_children_of_the_calls(
    call: Callable[[str], None],
    texts: int,
    demo_servers: list[RunningServer],
    trace_receiver: TraceReceiver,
    exporter: InMemorySpanExporter,
) -> None:
    call(demo_servers[call is rerank].base_url)

    (ours,) = exporter.get_finished_spans()
    assert ours.context is not None
    in_trace = ours.context.trace_id.to_bytes(16, "big")
    until = time.monotonic() + SECONDS
    while len(theirs := trace_receiver.spans_in(in_trace)) < texts and time.monotonic() < until:
        time.sleep(0.2)
    # One for each text, and for each that the client asked about the server with.
    assert len(theirs) >= texts
    assert {span.name for span in theirs} == {"llm_request"}
    assert {span.parent_span_id for span in theirs} == {ours.context.span_id.to_bytes(8, "big")}
