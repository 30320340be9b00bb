"""Spans and metrics of OpenTelemetry for the calls of a client, by its conventions for generative AI.

Names are those of the semantic conventions 1.41, the last release that has them; none of them is stable. For
what they have no name there is `qwen3_vllm.*`. No text and no message of an error is recorded, since servers
repeat texts in their messages.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import NamedTuple

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.util.types import AttributeValue
from yarl import URL

from qwen3_vllm import errors
from qwen3_vllm._core.telemetry.observer import Observer
from qwen3_vllm._core.usage import Usage

Attributes = dict[str, AttributeValue]

_SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4**power for power in range(14))  # 1 to 67,108,864


class _Instruments(NamedTuple):
    tracer: trace.Tracer
    duration: metrics.Histogram
    tokens: metrics.Histogram


@cache
def _instruments() -> _Instruments:
    """Make those of this process; what the application sets up later, they use from then on."""
    meter = metrics.get_meter("qwen3_vllm", schema_url=_SCHEMA)
    return _Instruments(
        trace.get_tracer("qwen3_vllm", schema_url=_SCHEMA),
        meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        ),
        meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        ),
    )


class ObservedCall(Observer):
    """One call of a client: a span, which begins with this object and ends with its `with` block.

    The caller's thread begins and ends it, where the application's span processors may take their time; the
    thread that sends all requests only takes notes.
    """

    def __init__(
        self, operation: str, addresses: Sequence[str], learned: Callable[[], tuple[str | None, int | None]]
    ) -> None:
        self._operation, self._learned = operation, learned
        self._addresses, self._answered = addresses, set[str]()
        self._usage = Usage()
        self._sent_again: list[tuple[int, Attributes]] = []
        self._began = time.perf_counter()
        name, attributes = self._name_and_attributes()
        self._span = _instruments().tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes)
        self._context = trace.set_span_in_context(self._span)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None, /
    ) -> None:
        seconds = time.perf_counter() - self._began
        name, attributes = self._name_and_attributes()
        if kind is not None:
            attributes["error.type"] = kind.__qualname__
        instruments, usage = _instruments(), self._usage
        instruments.duration.record(seconds, attributes, self._context)
        if counted := usage.requests > usage.uncounted == 0:
            of_input = {**attributes, "gen_ai.token.type": "input"}
            instruments.tokens.record(usage.tokens, of_input, self._context)
        if self._span.is_recording():
            self._span.update_name(name)
            self._span.set_attributes(attributes | self._details(counted=counted))
            for at, failure in tuple(self._sent_again):
                self._span.add_event("qwen3_vllm.sent_again", failure, at)
            if kind is not None:
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()

    def begin_requests(self) -> None:
        context.attach(self._context)

    def answered(self, address: str, tokens: int | None) -> None:
        self._answered.add(address)
        self._usage += Usage(1, tokens or 0, int(tokens is None))

    def sent_again(self, error: Exception) -> None:
        failure: Attributes = {"error.type": type(error).__qualname__}
        if isinstance(error, errors.ServerError):
            failure["http.response.status_code"] = error.status
        self._sent_again.append((time.time_ns(), failure))

    def _who_answered(self) -> Sequence[str]:
        return tuple(self._answered)  # at once: requests of a cancelled call may still be under way

    def _name_and_attributes(self) -> tuple[str, Attributes]:
        """As far as they are known: the server may have to be asked for its model first."""
        model, _ = self._learned()
        answered = self._who_answered()
        attributes: Attributes = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": "vllm",
            **_server_of(answered if len(answered) == 1 else self._addresses),
        }
        if model is None:
            return self._operation, attributes
        return f"{self._operation} {model}", attributes | {"gen_ai.request.model": model}

    def _details(self, *, counted: bool) -> Attributes:
        """What would be too much for metrics."""
        _, dimensions = self._learned()
        details: Attributes = {
            "qwen3_vllm.batches": self._usage.requests,
            "qwen3_vllm.retries": len(self._sent_again),
        }
        if dimensions is not None:
            details["gen_ai.embeddings.dimension.count"] = dimensions
        if len(answered := self._who_answered()) > 1:
            details["qwen3_vllm.servers"] = sorted(URL(address).authority for address in answered)
        if counted:
            details["gen_ai.usage.input_tokens"] = self._usage.tokens
        return details


def _server_of(addresses: Sequence[str]) -> Attributes:
    """The server that did it, or the hosts of several."""
    servers = [URL(address) for address in addresses]
    found: Attributes = {"server.address": ", ".join(sorted({server.host or "" for server in servers}))}
    if len(servers) == 1:
        found["server.port"] = servers[0].port or 0
    return found


def headers_of_context() -> Mapping[str, str]:
    """The headers by which a server's spans join the trace of the current task."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
