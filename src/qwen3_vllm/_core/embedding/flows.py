"""What the methods of an EmbeddingClient send, and what they make of the results."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from qwen3_vllm._core.batching.batches import send_batches
from qwen3_vllm._core.batching.failures import failed
from qwen3_vllm._core.cache_keys import CacheRole, cache_namespace
from qwen3_vllm._core.discovery.served_model import Served, ask_anywhere, ask_served
from qwen3_vllm._core.embedding.collect import Collector
from qwen3_vllm._core.embedding.inputs import prompted_documents, prompted_queries
from qwen3_vllm._core.embedding.probe import ask_embedding_server
from qwen3_vllm._core.embedding.relearn import Lesson, ask_most, relearn
from qwen3_vllm._core.embedding.requests import batches_of, call_of
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.embedding.truncation import Fitted, Truncation, fit, truncation_of
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.texts import Failures, check_text
from qwen3_vllm._core.vllm_api.error_bodies import may_lack

Report = Callable[[Truncation], None]

logger = logging.getLogger(__name__)

START = "qwen3-vllm serve embedding"
_MANY_BATCHES, _SENT_AHEAD = 9, 2  # some of many go first: a gateway may take fewer texts at once
_MOST_LESSONS = 5  # of one call: another server, what it can do, its context, the true one, a text at fault


class EmbeddingFlows:
    """One flow per method of a client; they share what is known of its server."""

    def __init__(self, settings: EmbeddingSettings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self.server: AskedOnce[EmbeddingServer] = AskedOnce()
        self._first_model: str | None = None

    def cache_namespace(self, role: CacheRole, instruction: str | None) -> Flow[str]:
        task = self._settings.instruction if instruction is None else instruction
        check_text(task, "the instruction")
        server = yield from self.known_server()
        return cache_namespace(role, server.model, server.root, task, self._settings)

    def embed_queries(self, texts: Sequence[str], instruction: str | Sequence[str] | None) -> Flow[Collector]:
        task = self._settings.instruction if instruction is None else instruction
        prompted = prompted_queries(texts, task, self._settings.invalid_text)
        return self._embed(*prompted, "query", Collector())

    def embed_documents(
        self, texts: Sequence[str], collector: Collector, report: Report | None = None
    ) -> Flow[Collector]:
        prompted = prompted_documents(texts, self._settings.invalid_text)
        return self._embed(*prompted, "document", collector, report)

    def _embed(
        self,
        prompted: list[str],
        unsendable: Failures,
        noun: str,
        collector: Collector,
        report: Report | None = None,
    ) -> Flow[Collector]:
        """Embed prompts: those of all texts but the unsendable ones, which are failures by index.

        Args:
            report: Is given what was cut, if anything was; None logs one warning.
        """
        count = len(prompted) + len(unsendable)
        unique = list(dict.fromkeys(prompted))
        if not unique:
            collector.make_room(count, self._settings.dimensions or 0)
            if unsendable:
                raise failed(unsendable, count, noun, None)
            return collector
        # Nobody waits for one of many documents; a query may hold up a response.
        bulk = len(unique) > (1 if noun == "document" else self._settings.batch_size)
        refused, fitted = yield from self.embed_unique(unique, collector, bulk)
        if not refused and not fitted.any_cut and len(unique) == count:
            return collector
        row_of = {text: row for row, text in enumerate(unique)}
        places = map(row_of.__getitem__, prompted)
        rows = [-1 if index in unsendable else next(places) for index in range(count)]
        failures = unsendable | {index: refused[row] for index, row in enumerate(rows) if row in refused}
        truncation = truncation_of(fitted, [row for index, row in enumerate(rows) if index not in failures])
        if truncation and report is not None:
            report(truncation)
        elif truncation:
            logger.warning("%s", truncation.of_texts(count, noun))
        collector.spread(rows, failures)
        if failures:
            raise failed(failures, count, noun, collector.vectors)
        return collector

    def embed_unique(
        self, texts: list[str], collector: Collector, bulk: bool
    ) -> Flow[tuple[Failures, Fitted]]:
        """Embed different, sendable texts; failures by index into `texts`."""
        server = yield from self.known_server()
        truncate = self._settings.truncate
        fitted = yield from fit(server, texts, truncate=truncate)
        collector.make_room(len(texts), self._settings.dimensions or server.width)
        with collector.progress(len(texts) - len(fitted.refused)):
            failures = yield from self._send(server, fitted, texts, None, collector, bulk)
            lessons: list[Lesson] = []
            while failures and len(lessons) < _MOST_LESSONS:
                lesson = yield from relearn(
                    server, failures, texts, self._ask_again, lessons, truncate=truncate
                )
                if lesson is None:
                    break
                lessons.append(lesson)
                server, again = lesson.server, lesson.again
                self.server.value = server
                cut = yield from fit(server, [texts[i] for i in again], truncate=truncate, surely=True)
                fitted = fitted.with_again(again, cut)
                kept = {index: error for index, error in failures.items() if index not in again}
                sent = self._send(server, fitted, texts, again, collector, bulk, known_good=lesson.known_good)
                failures = kept | (yield from sent)
        return fitted.refused | failures, fitted

    def _send(
        self,
        server: EmbeddingServer,
        fitted: Fitted,
        texts: Sequence[str],
        only: Sequence[int] | None,
        collector: Collector,
        bulk: bool,
        *,
        known_good: bool = False,
    ) -> Flow[Failures]:
        """Send texts, all or those at some indexes, in requests of as many as the server takes."""
        most, known = self._settings.batch_size, server.most_texts.value
        call = partial(call_of, server, fitted, self._settings.dimensions, bulk)
        batches = batches_of(fitted, texts, known or most, only)
        ahead = len(batches) if known or len(batches) < _MANY_BATCHES else _SENT_AHEAD
        failures, refused = yield from send_batches(batches[:ahead], call, collector, known_good=known_good)
        largest = max(map(len, batches[:ahead]), default=0)
        doubtful = [index for index, error in failures.items() if may_lack(error)]
        if largest > 1 and (refused or doubtful) and not known_good:
            known = yield from ask_most(server, known or most)
        elif largest == most and not failures:
            server.most_texts.value = most  # what is taken once need not be tried first again
        rest = [index for batch in batches[ahead:] for index in batch]
        if rest and not doubtful and len(failures) == sum(map(len, batches[:ahead])):
            return failures | dict.fromkeys(rest, failures[batches[0][0]])  # nobody is there
        if known is not None and known < largest:
            rest += doubtful
            failures = {index: error for index, error in failures.items() if index not in doubtful}
        if rest:
            batches = batches_of(fitted, texts, known or most, rest)
            failures |= (yield from send_batches(batches, call, collector))[0]
        return failures

    def _ask_again(self) -> Flow[EmbeddingServer]:
        self.server.forget()
        return self.known_server()

    def known_server(self) -> Flow[EmbeddingServer]:
        """What is known of the server; asked by the first that needs it."""
        return self.server.get(self._ask_server)

    def _ask_server(self) -> Flow[EmbeddingServer]:
        def ask(served: Served) -> Flow[EmbeddingServer]:
            return ask_embedding_server(served, self._settings, self._transport.root, START)

        named = self._settings.model or self._first_model
        server = yield from ask_anywhere(
            self._transport, lambda listed: ask_served(named, "embedding", listed, ask)
        )
        self._first_model = server.model  # vectors of two models must not mix in one index
        return server
