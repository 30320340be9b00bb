"""The flows of a client with several addresses: each server scores a share of a call's pairs."""

from collections.abc import Mapping, Sequence

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core.batching.batches import plan
from qwen3_vllm._core.batching.shares import ask_any, share_out
from qwen3_vllm._core.discovery.likeness import Answer, ask_context_listed, difference
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.runner import Runner
from qwen3_vllm._core.http.several.server import Check
from qwen3_vllm._core.http.several.servers import Servers
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.reranking.flows import START, RerankFlows, Scored
from qwen3_vllm._core.reranking.pairs import Pair
from qwen3_vllm._core.reranking.same_model import PROBE_QUERY, PROBE_TASK, PROBES, is_same_model
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.settings import RerankSettings, of_each_server


def connect(settings: RerankSettings) -> tuple[Runner, RerankFlows]:
    """Make what runs the flows of a client, and the flows."""
    members = []
    for each in of_each_server(settings):
        transport = Transport(each, start_command=START)
        members.append((RerankFlows(each, transport), transport))
    if len(members) == 1:
        flows, transport = members[0]
        return transport, flows
    check = Check(_answer_to_probes, _difference)
    return Servers(members, settings, check, keeps_one=False), _SharedFlows(settings)


def _answer_to_probes(flows: RerankFlows, anew: bool) -> Flow[Answer]:
    if anew:
        flows.server.forget()
    pairs = [Pair(PROBE_QUERY, document) for document in PROBES]
    scored = yield from flows.score_pairs(pairs, PROBE_TASK, len(pairs))
    for error in scored.failures.values():
        raise error
    server = yield from flows.known_server()
    return Answer(scored.scores, (yield from ask_context_listed(server.model)))


def _difference(root: str, first: Answer, other: Answer) -> str | None:
    return difference(root, first, other, is_same_model, "scores")


class _SharedFlows(RerankFlows):
    """Leaves to single servers what is about one server."""

    def __init__(self, settings: RerankSettings) -> None:
        self._settings = settings
        self.server = AskedOnce()

    def _ask_server(self) -> Flow[RerankServer]:
        return ask_any(RerankFlows.known_server)

    def score_pairs(self, pairs: list[Pair], task: str, most: int) -> Flow[Scored]:
        whole = Scored(np.full(len(pairs), np.nan, np.float32), {}, {}, 0)

        def score(
            flows: RerankFlows, indexes: Sequence[int]
        ) -> Flow[tuple[Mapping[int, errors.Qwen3VLLMError], Scored]]:
            scored = yield from flows.score_pairs([pairs[index] for index in indexes], task, most)
            return scored.failures, scored

        def take(indexes: list[int], share: Scored) -> None:
            nonlocal whole
            whole = whole.with_again(indexes, share)

        parts = plan(range(len(pairs)), [len(pair.document) for pair in pairs], most)
        failures = yield from share_out(parts, score, take, bulk=False, retries=self._settings.max_retries)
        return whole._replace(failures=failures)
