"""What the methods of a RerankClient send, and what they make of the results."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.batching.batches import send_batches
from qwen3_vllm._core.batching.division import was_divided
from qwen3_vllm._core.batching.failures import failed
from qwen3_vllm._core.discovery.served_model import Served, ask_anywhere, ask_served
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.reranking.collect import Collector
from qwen3_vllm._core.reranking.inputs import check_query, check_task, check_top_n, paired
from qwen3_vllm._core.reranking.pairs import Pair
from qwen3_vllm._core.reranking.probe import ask_rerank_server, fingerprint_call, fingerprint_of
from qwen3_vllm._core.reranking.ranking import RelevanceScores, RerankResult, results_of
from qwen3_vllm._core.reranking.relearn import ask_most, relearn, scores_a_pair, seems_another, takes_routes
from qwen3_vllm._core.reranking.requests import Requests, call_of_one
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.reranking.truncation import fit, warn_of_cuts
from qwen3_vllm._core.settings import RerankSettings
from qwen3_vllm._core.texts import Failures
from qwen3_vllm._core.vllm_api.error_bodies import is_too_long, may_lack

START = "qwen3-vllm serve reranker"
# vLLM tokenises a request before its engine sees any of it, so parts of one query overlap. On one H100, 100
# documents of 128 tokens took 196 ms in one request, 148 ms in ten, 138 ms in twenty, 176 ms in a hundred.
_REQUESTS_PER_QUERY = 10
_SMALLEST_REQUEST = 4
_MOST_LESSONS = 3  # of the failures of one call: a context, and the true one


class Scored(NamedTuple):
    """Different pairs, scored: failures, and tokens before a cut to `limit`, by index."""

    scores: RelevanceScores
    failures: Failures
    cut: dict[int, int]
    limit: int

    def with_again(self, indexes: list[int], again: "Scored") -> "Scored":
        """Put the pairs at `indexes`, scored again, in their places."""
        self.scores[indexes] = again.scores
        failures = {index: error for index, error in self.failures.items() if index not in indexes}
        failures |= {indexes[place]: error for place, error in again.failures.items()}
        cut = self.cut | {indexes[place]: length for place, length in again.cut.items()}
        return Scored(self.scores, failures, cut, again.limit or self.limit)


class RerankFlows:
    """One flow per method of a client; they share what is known of its server."""

    def __init__(self, settings: RerankSettings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self.server: AskedOnce[RerankServer] = AskedOnce()
        self._connections_known = 0

    def rerank(
        self, query: str, documents: Sequence[str], top_n: int | None, instruction: str | None
    ) -> Flow[list[RerankResult]]:
        check_query(query, self._settings.invalid_text)
        check_top_n(top_n)
        scores = yield from self.score(query, documents, instruction)
        return results_of(scores)[:top_n]

    def score(
        self, query: str | Sequence[str], documents: Sequence[str], instruction: str | None
    ) -> Flow[RelevanceScores]:
        task = self._settings.instruction if instruction is None else instruction
        check_task(task)
        pairs, rows, unsendable = paired(query, documents, self._settings.invalid_text)
        share = max(_SMALLEST_REQUEST, -(-len(pairs) // _REQUESTS_PER_QUERY))
        most = min(self._settings.batch_size, share)
        scores, refused, cut, limit = yield from self.score_pairs(pairs, prompts.neutralise(task), most)
        failures = unsendable | {index: refused[row] for index, row in enumerate(rows) if row in refused}
        if cut:
            warn_of_cuts(
                [cut[row] for index, row in enumerate(rows) if row in cut and index not in failures],
                limit,
                len(rows),
            )
        result = scores[rows] if len(scores) else np.full(len(rows), np.nan, np.float32)
        if failures:
            result[list(failures)] = np.nan
            raise failed(failures, len(rows), "document", result)
        return result

    def score_pairs(self, pairs: list[Pair], task: str, most: int) -> Flow[Scored]:
        """Score different pairs, so many per request; once more if the server is another than before."""
        if not pairs:
            return Scored(np.empty(0, np.float32), {}, {}, 0)
        server = yield from self.known_server()
        one_query = len({pair.query for pair in pairs}) == 1
        scored, changed = yield from self._score_on(server, pairs, task, most, one_query)
        if changed:
            self.server.forget()
            try:
                server = yield from self.known_server()
            except (errors.ServerError, errors.InvalidAnswerError):
                return scored  # what failed is the error
            scored, _ = yield from self._score_on(server, pairs, task, most, one_query)
        for _ in range(_MOST_LESSONS):
            learned = yield from relearn(server, scored.failures, pairs)
            if learned is None:
                break
            server, again = learned
            self.server.value = server
            those = [pairs[index] for index in again]
            cut, _ = yield from self._score_on(server, those, task, most, one_query, surely=True)
            scored = scored.with_again(again, cut)
        whole = [i for i, error in scored.failures.items() if may_lack(error) and not was_divided(error)]
        if len(whole) > 1 and (yield from scores_a_pair(server)):
            those = [pairs[index] for index in whole]
            found, _ = yield from self._score_on(server, those, task, most, one_query, known_good=True)
            scored = scored.with_again(whole, found)
        return scored

    def _score_on(
        self,
        server: RerankServer,
        pairs: list[Pair],
        task: str,
        most: int,
        one_query: bool,
        *,
        surely: bool = False,
        known_good: bool = False,
    ) -> Flow[tuple[Scored, bool]]:
        """Score pairs on a server that is known; returns also whether it is another by now.

        Args:
            one_query: Whether all pairs of the call, which may be more than these, have one query.
            surely: It has refused them for their length: they must be cut even where nobody counts.
            known_good: It has refused them, and was just seen to score another pair.
        """
        template = self._settings.template
        fitted = yield from fit(
            pairs,
            task,
            server,
            one_query=one_query,
            max_tokens_per_doc=self._settings.max_tokens_per_doc,
            truncate=self._settings.truncate,
            tokenizer=self._settings.tokenizer,
            measure=(lambda pair: call_of_one(server, pair, task, template)) if surely else None,
        )
        collector = Collector(len(pairs))
        requests = Requests(server, fitted, task, template)
        if known_good:
            batches = requests.batches(most)
            failures, _ = yield from send_batches(batches, requests.call, collector, known_good=True)
            return Scored(collector.scores, fitted.refused | failures, fitted.cut, fitted.limit), False
        failures = yield from self._send(server, requests, most, collector)
        none_scored = len(failures) == requests.count
        changed = not surely and seems_another(server, failures, none_scored)
        if not changed and not none_scored:
            changed = not (yield from self._is_still(server))
        refused = [index for index, error in failures.items() if may_lack(error) and not is_too_long(error)]
        if refused and not changed and not surely:
            changed = not (yield from takes_routes(server, requests.routes_of(refused)))
        return Scored(collector.scores, fitted.refused | failures, fitted.cut, fitted.limit), changed

    def _send(
        self, server: RerankServer, requests: Requests, most: int, collector: Collector
    ) -> Flow[Failures]:
        """Send pairs, in requests of so many, or as many as the server takes."""
        known = server.most_texts.value
        batches = requests.batches(min(most, known or most))
        failures, refused = yield from send_batches(batches, requests.call, collector)
        doubtful = {index for index, error in failures.items() if may_lack(error) and not is_too_long(error)}
        if refused or doubtful:
            known = yield from ask_most(server, known or self._settings.batch_size)
            if doubtful and known < max(map(len, batches)):
                batches = requests.batches(known, doubtful)
                again, _ = yield from send_batches(batches, requests.call, collector)
                failures = {i: error for i, error in failures.items() if i not in doubtful} | again
        return failures

    def _is_still(self, server: RerankServer) -> Flow[bool]:
        """Whether the server treats a pair as it did; asked when it may be another process by now."""
        if self._transport.connections_made == self._connections_known:
            return True
        (answer,) = yield from send(fingerprint_call(server))
        if isinstance(answer, errors.Qwen3VLLMError):
            return not may_lack(answer)
        self._connections_known = self._transport.connections_made
        return server.fingerprint.matches(fingerprint_of(answer))

    def known_server(self) -> Flow[RerankServer]:
        """What is known of the server; asked by the first that needs it."""
        return self.server.get(self._ask_server)

    def _ask_server(self) -> Flow[RerankServer]:
        def ask(served: Served) -> Flow[RerankServer]:
            return ask_rerank_server(served, self._transport.root, START, self._settings.template)

        server = yield from ask_anywhere(
            self._transport, lambda listed: ask_served(self._settings.model, "reranker", listed, ask)
        )
        self._connections_known = self._transport.connections_made
        return server
