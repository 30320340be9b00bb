"""The flows of a client with several addresses: each server embeds a share of a call's texts."""

from collections.abc import Mapping, Sequence

from qwen3_vllm import errors
from qwen3_vllm._core.batching.batches import plan
from qwen3_vllm._core.batching.shares import ask_any, share_out
from qwen3_vllm._core.discovery.likeness import Answer, ask_context_listed, difference
from qwen3_vllm._core.embedding.collect import Collector, Part
from qwen3_vllm._core.embedding.flows import START, EmbeddingFlows
from qwen3_vllm._core.embedding.same_model import PROBE, is_same_model
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.embedding.truncation import Fitted
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.runner import Runner
from qwen3_vllm._core.http.several.server import Check
from qwen3_vllm._core.http.several.servers import Servers
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.settings import EmbeddingSettings, of_each_server
from qwen3_vllm._core.texts import Failures


def connect(settings: EmbeddingSettings) -> tuple[Runner, EmbeddingFlows]:
    """Make what runs the flows of a client, and the flows."""
    members = []
    for each in of_each_server(settings):
        transport = Transport(each, start_command=START)
        members.append((EmbeddingFlows(each, transport), transport))
    if len(members) == 1:
        flows, transport = members[0]
        return transport, flows
    check = Check(_answer_to_probe, _difference)
    return Servers(members, settings, check, keeps_one=True), _SharedFlows(settings)


def _answer_to_probe(flows: EmbeddingFlows, anew: bool) -> Flow[Answer]:
    if anew:
        flows.server.forget()
    collector = Collector()
    failures, _ = yield from flows.embed_unique([PROBE], collector, bulk=False)
    if failures:
        raise failures[0]
    server = yield from flows.known_server()
    return Answer(collector.vectors[0], (yield from ask_context_listed(server.model)))


def _difference(root: str, first: Answer, other: Answer) -> str | None:
    return difference(root, first, other, is_same_model, "vectors")


class _SharedFlows(EmbeddingFlows):
    """Leaves to single servers what is about one server."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self.server = AskedOnce()

    def _ask_server(self) -> Flow[EmbeddingServer]:
        return ask_any(EmbeddingFlows.known_server)

    def embed_unique(
        self, texts: list[str], collector: Collector, bulk: bool
    ) -> Flow[tuple[Failures, Fitted]]:
        server = yield from self.known_server()
        collector.make_room(len(texts), self._settings.dimensions or server.width)
        fitted = Fitted(list(texts), {}, {})

        def embed(
            flows: EmbeddingFlows, indexes: Sequence[int]
        ) -> Flow[tuple[Mapping[int, errors.Qwen3VLLMError], Fitted]]:
            return flows.embed_unique([texts[index] for index in indexes], Part(collector, indexes), bulk)

        def take(indexes: list[int], share: Fitted) -> None:
            nonlocal fitted
            if share.any_cut:
                fitted = fitted.with_again(indexes, share)

        parts = plan(range(len(texts)), list(map(len, texts)), self._settings.batch_size)
        with collector.progress(len(texts)):
            failures = yield from share_out(parts, embed, take, bulk=bulk, retries=self._settings.max_retries)
        return failures, fitted
