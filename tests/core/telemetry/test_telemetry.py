"""Spans and metrics of OpenTelemetry: one span per call, whose requests carry it to the server."""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from opentelemetry import metrics, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from qwen3_vllm._core.http.connections.loop import background
from qwen3_vllm._core.telemetry import observe, spans
from qwen3_vllm.bulk import embed_stream
from tests.conftest import Embed, Score
from tests.fake_vllm import FakeVLLM
from tests.faults import Reply, SocketServer, always, first, hang, instead, serve


class Recorded(NamedTuple):
    """What an application's exporter and reader got."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: trace.Tracer

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return [point for metric in found if metric.name == name for point in metric.data.data_points]  # type: ignore[misc]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Recorded]]:
    """Set OpenTelemetry up as an application does, for this test alone."""

    def set_up(**options: Any) -> Recorded:
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        provider = TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
        monkeypatch.setattr(metrics, "get_meter", MeterProvider([reader]).get_meter)
        spans._instruments.cache_clear()
        return Recorded(exporter, reader, provider.get_tracer("application"))

    yield set_up
    spans._instruments.cache_clear()


@pytest.fixture
def recorded(record: Callable[..., Recorded]) -> Recorded:
    return record()


@pytest.fixture
def server() -> Iterator[SocketServer]:
    with serve(FakeVLLM("embedding", version="0.12.0")) as running:  # its responses report tokens
        yield running


def traceparent(span: Any) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def test_a_call_is_a_span_under_the_callers(recorded: Recorded, server: SocketServer, embed: Embed) -> None:
    client = EmbeddingClient(base_url=server.base_url, batch_size=2)
    with recorded.tracer.start_as_current_span("caller") as caller:
        embed(client, ["secret one", "two", "three"])

    span, _ = recorded.spans
    assert (span.name, span.kind) == ("embeddings Qwen3", trace.SpanKind.CLIENT)
    assert span.parent == caller.get_span_context()
    assert span.status.status_code is trace.StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "Qwen3",
        "gen_ai.embeddings.dimension.count": 16,
        "gen_ai.usage.input_tokens": 21,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "qwen3_vllm.batches": 2,
        "qwen3_vllm.retries": 0,
    }
    assert "secret" not in span.to_json()


def test_a_ranking_is_a_span(recorded: Recorded, rerank_server: SocketServer, score: Score) -> None:
    score(RerankClient(base_url=rerank_server.base_url, model="Qwen3"), "query", ["one", "two"])

    (span,) = recorded.spans
    assert span.name == "rerank Qwen3"
    assert span.attributes and span.attributes["gen_ai.operation.name"] == "rerank"
    assert span.attributes["qwen3_vllm.batches"] == 1
    assert "gen_ai.embeddings.dimension.count" not in span.attributes


def test_each_request_of_a_call_carries_its_span(
    recorded: Recorded, server: SocketServer, embed: Embed
) -> None:
    client = EmbeddingClient(base_url=server.base_url, batch_size=1)
    embed(client, ["one", "two"])
    first_call = len(server.requests)
    embed(client, ["three"])

    spans = recorded.spans
    sent = [request.headers["traceparent"] for request in server.requests]
    assert sent == [traceparent(spans[0])] * first_call + [traceparent(spans[1])]


def test_an_application_that_does_not_sample_a_call_is_obeyed(
    record: Callable[..., Recorded], server: SocketServer
) -> None:
    recorded = record(sampler=sampling.ALWAYS_OFF)
    EmbeddingClient(base_url=server.base_url).embed_documents(["one"])

    assert recorded.spans == []
    assert {request.headers["traceparent"][-3:] for request in server.requests} <= {"-00", "-02"}
    assert len(recorded.points("gen_ai.client.operation.duration")) == 1


def test_the_application_of_headers_of_its_own_keeps_them(recorded: Recorded, server: SocketServer) -> None:
    own = "00-11111111111111111111111111111111-2222222222222222-01"
    EmbeddingClient(base_url=server.base_url, default_headers={"Traceparent": own}).embed_documents(["one"])

    assert {request.headers["traceparent"] for request in server.requests} == {own}


def test_a_span_of_aiohttps_instrumentation_stands_between_call_and_server(
    recorded: Recorded, server: SocketServer
) -> None:
    made = []

    async def start(session: object, context: object, params: aiohttp.TraceRequestStartParams) -> None:
        span = recorded.tracer.start_span("POST")
        propagate.inject(params.headers, trace.set_span_in_context(span))
        span.end()
        made.append(span)

    traces = aiohttp.TraceConfig()
    traces.on_request_start.append(start)
    traces.freeze()

    async def session() -> aiohttp.ClientSession:
        return background.session()

    configured = asyncio.run_coroutine_threadsafe(session(), background.get()).result().trace_configs
    configured.append(traces)
    try:
        EmbeddingClient(base_url=server.base_url).embed_documents(["one"])
    finally:
        configured.remove(traces)

    *requests, call = recorded.spans
    assert all(span.parent == call.get_span_context() for span in requests)
    assert [request.headers["traceparent"] for request in server.requests] == list(map(traceparent, made))


def test_what_is_sent_again_is_seen(recorded: Recorded, server: SocketServer) -> None:
    client = EmbeddingClient(base_url=server.base_url)
    client.cache_namespace("document")  # learns what the server is
    server.fault = first(2, instead(502), "/v1/embeddings")
    client.embed_documents(["one"])

    (span,) = recorded.spans
    assert span.attributes and span.attributes["qwen3_vllm.retries"] == 2
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("qwen3_vllm.sent_again", {"error.type": "ServerError", "http.response.status_code": 502})
    ] * 2


def test_of_several_servers_those_that_answered_are_named(recorded: Recorded, server: SocketServer) -> None:
    texts = [f"text {number}" for number in range(9)]
    with serve(FakeVLLM("embedding", version="0.12.0")) as other:
        both = EmbeddingClient(base_url=[server.base_url, other.base_url], batch_size=1, max_retries=0)
        both.embed_documents(texts)
        other.fault = always(instead(502), "/v1/embeddings")
        both.embed_documents(texts)

    by_both, by_one = (dict(span.attributes or {}) for span in recorded.spans)
    assert by_both["server.address"] == "127.0.0.1"
    assert "server.port" not in by_both
    assert set(by_both["qwen3_vllm.servers"]) == {f"127.0.0.1:{each.port}" for each in (server, other)}  # type: ignore[arg-type]
    assert (by_one["server.port"], by_one["qwen3_vllm.batches"]) == (server.port, 9)
    assert by_one["qwen3_vllm.retries"] == len(recorded.spans[1].events) >= 1
    assert recorded.spans[1].events[0].attributes == {
        "error.type": "ServerError",
        "http.response.status_code": 502,
    }


def test_an_error_is_named_and_its_message_is_not_kept(
    recorded: Recorded, server: SocketServer, embed: Embed
) -> None:
    client = EmbeddingClient(base_url=server.base_url, max_retries=0)
    server.fault = always(instead(500, {"message": "cannot read 'secret'"}), "/v1/embeddings")
    with pytest.raises(errors.ServerError):
        embed(client, ["secret"])

    (span,) = recorded.spans
    assert span.name == "embeddings"  # its server never said which model it has
    assert span.attributes and span.attributes["error.type"] == "ServerError"
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, None)
    assert "secret" not in span.to_json()
    (point,) = recorded.points("gen_ai.client.operation.duration")
    assert point.attributes and point.attributes["error.type"] == "ServerError"
    assert recorded.points("gen_ai.client.token.usage") == []


async def test_the_span_of_a_cancelled_call_ends(recorded: Recorded, server: SocketServer) -> None:
    arrived = threading.Event()

    def hang_and_tell(connection: socket.socket, reply: Reply) -> None:
        arrived.set()
        hang(connection, reply)

    server.fault = always(hang_and_tell)
    call = asyncio.create_task(EmbeddingClient(base_url=server.base_url).aembed_documents(["one"]))
    await asyncio.to_thread(arrived.wait)
    call.cancel()
    await asyncio.wait([call])

    (span,) = recorded.spans
    assert span.attributes and span.attributes["error.type"] == "CancelledError"


def test_metrics_have_the_buckets_of_the_conventions(recorded: Recorded, server: SocketServer) -> None:
    client = EmbeddingClient(base_url=server.base_url)
    client.embed_documents(["one", "two"])

    known = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "Qwen3",
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    (duration,) = recorded.points("gen_ai.client.operation.duration")
    (tokens,) = recorded.points("gen_ai.client.token.usage")
    assert (dict(duration.attributes or {}), duration.count) == (known, 1)
    assert (dict(tokens.attributes or {}), tokens.sum) == ({**known, "gen_ai.token.type": "input"}, 8)
    assert duration.explicit_bounds == (
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    )
    assert tokens.explicit_bounds == (
        *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
    )


def test_tokens_that_are_not_all_reported_are_left_out(
    recorded: Recorded, embedding_server: SocketServer
) -> None:
    EmbeddingClient(base_url=embedding_server.base_url).embed_documents(["one"])  # binary responses

    (span,) = recorded.spans
    assert span.attributes and span.attributes["qwen3_vllm.batches"] == 1
    assert "gen_ai.usage.input_tokens" not in span.attributes
    assert recorded.points("gen_ai.client.token.usage") == []


def test_a_stream_has_a_span_for_each_of_its_calls(recorded: Recorded, server: SocketServer) -> None:
    with recorded.tracer.start_as_current_span("caller") as caller:
        list(embed_stream([(1, "one"), (2, "two")], EmbeddingClient(base_url=server.base_url)))

    span, _ = recorded.spans
    assert (span.name, span.parent) == ("embeddings Qwen3", caller.get_span_context())


def test_a_process_without_opentelemetry_sends_nothing_of_it(
    recorded: Recorded, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.context")
    EmbeddingClient(base_url=server.base_url).embed_documents(["one"])

    assert recorded.spans == []
    assert not any("traceparent" in request.headers for request in server.requests)


def test_an_api_that_is_too_old_is_left_alone(
    recorded: Recorded, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics.Meter, "create_histogram", lambda self, name, unit="": None)
    observe._is_new_enough.cache_clear()
    try:
        EmbeddingClient(base_url=server.base_url).embed_documents(["one"])
    finally:
        observe._is_new_enough.cache_clear()

    assert recorded.spans == []
