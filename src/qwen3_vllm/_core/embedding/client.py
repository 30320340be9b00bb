"""EmbeddingClient: texts in, unit vectors out, from a vLLM server of Qwen3-Embedding."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.batches import send_batches
from qwen3_vllm._core.cache_keys import CacheRole, cache_namespace
from qwen3_vllm._core.client import Client, takes_options_of
from qwen3_vllm._core.embedding.collect import Collector, Lists
from qwen3_vllm._core.embedding.probe import ask_embedding_server
from qwen3_vllm._core.embedding.relearn import ask_most, relearn
from qwen3_vllm._core.embedding.requests import batches_of, call_of
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.embedding.truncation import Fitted, Truncation, fit, truncation_of
from qwen3_vllm._core.failures import failed
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.options import options_of
from qwen3_vllm._core.served_model import Served, ask_anywhere, ask_served
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.texts import Failures, check_list, check_text, plural, unsendable_texts
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm._core.vllm_api.error_bodies import may_lack

Report = Callable[[Truncation], None]

logger = logging.getLogger(__name__)

_START = "qwen3-vllm serve embedding"
_MANY_BATCHES, _SENT_AHEAD = 9, 2  # some of many go first: a gateway may take fewer texts at once
_MOST_LESSONS = 3  # of the failures of one call: its server, its context, its true context


class EmbeddingClient(Client[EmbeddingSettings]):
    """Embeds queries and documents; the options are those of `EmbeddingSettings`, and stay in `settings`.

    Sync and async, safe in threads, in any event loop and after a fork; nothing must be closed. Nothing is
    sent before the first call.
    """

    @takes_options_of(EmbeddingSettings)
    def __init__(self, **options: Any) -> None:
        """Take the options of `EmbeddingSettings`."""
        self._begin(options_of(type(self), EmbeddingSettings, options))

    def _begin(self, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._transport = Transport(settings, start_command=_START)
        self._server: AskedOnce[EmbeddingServer] = AskedOnce()
        self._first_model: str | None = None

    @takes_options_of(EmbeddingSettings)
    def with_options(self, **changes: Any) -> "EmbeddingClient":
        """Make a client with other options, which are checked; it asks its server anew."""
        return type(self)(**{**dict(self._settings), **changes})

    def embed_queries(
        self, texts: Sequence[str], *, instruction: str | Sequence[str] | None = None
    ) -> Vectors:
        """Embed queries, each with the instruction before it.

        Args:
            texts: Queries. `[]` gives shape (0, dimensions or 0) without a request.
            instruction: For this call instead of the client's: one, or one for each query. `""` embeds
                queries bare.

        Returns:
            float32, shape (len(texts), dimensions), in order, rows of length 1.

        Raises:
            InputError: Texts that cannot be embedded; names their indexes.
            Qwen3VLLMError: What else can go wrong, see `qwen3_vllm.errors`. Whatever it is, `error.partial`
                has the vectors of the texts that were embedded, and `error.errors` the failures by index.
        """
        return self._transport.run(self._embed_queries(texts, instruction)).vectors

    async def aembed_queries(
        self, texts: Sequence[str], *, instruction: str | Sequence[str] | None = None
    ) -> Vectors:
        """Embed queries; see `embed_queries`."""
        return (await self._transport.arun(self._embed_queries(texts, instruction))).vectors

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Embed documents, without an instruction; shape, order and errors as in `embed_queries`.

        Texts that occur more than once are sent once. `show_progress` draws a bar on standard error.
        """
        collector = Collector(show_progress=show_progress)
        return self._transport.run(self._embed_documents(texts, collector)).vectors

    async def aembed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Embed documents; see `embed_documents`."""
        collector = Collector(show_progress=show_progress)
        return (await self._transport.arun(self._embed_documents(texts, collector))).vectors

    def embed_documents_as_lists(self, texts: Sequence[str], *, show_progress: bool = False) -> Lists:
        """Embed documents into lists of floats, as frameworks want them; else as `embed_documents`.

        Floats cost some 15 µs a vector of 1,024. They are made while other requests are under way.
        """
        collector = Collector(as_lists=True, show_progress=show_progress)
        return self._transport.run(self._embed_documents(texts, collector)).lists

    async def aembed_documents_as_lists(self, texts: Sequence[str], *, show_progress: bool = False) -> Lists:
        """Embed documents into lists of floats; see `embed_documents_as_lists`."""
        collector = Collector(as_lists=True, show_progress=show_progress)
        return (await self._transport.arun(self._embed_documents(texts, collector))).lists

    def cache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors, so that no lookup gives a vector of another kind.

        Different for queries and documents, models, checkpoints, dimensions and, for queries, instructions.
        The server is asked, once, what it serves: it must run.

        Args:
            role: "query" or "document".
            instruction: Of calls with one of their own; None: the client's.

        Returns:
            Letters, digits, `_`, `.` and `-`, under 100: fit for files, tables, and key prefixes.
        """
        return self._transport.run(self._cache_namespace(role, instruction))

    async def acache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors; see `cache_namespace`."""
        return await self._transport.arun(self._cache_namespace(role, instruction))

    def _cache_namespace(self, role: CacheRole, instruction: str | None) -> Flow[str]:
        task = self._settings.instruction if instruction is None else instruction
        check_text(task, "the instruction")
        server = yield from self._server.get(self._ask_server)
        return cache_namespace(role, server.model, server.root, task, self._settings)

    def _embed_queries(
        self, texts: Sequence[str], instruction: str | Sequence[str] | None
    ) -> Flow[Collector]:
        task = self._settings.instruction if instruction is None else instruction
        check_list(texts, "query")
        texts = self._sendable(texts)
        bad = unsendable_texts(texts, "query")
        if isinstance(task, str) or not isinstance(task, Sequence | np.ndarray):
            check_text(task, "the instruction")
            tasks: Sequence[str] = [task] * len(texts)
        else:
            bad_tasks = unsendable_texts(task, "instruction")
            bad |= {i: errors.InputError(f"has an instruction that {why}") for i, why in bad_tasks.items()}
            tasks = task
            if len(tasks) != len(texts):
                raise errors.InputError(
                    f"{len(tasks)} instructions for {len(texts)} queries: pass one, or one for each query"
                )
        prompted = [
            prompts.embedding_query(query, task)
            for index, (query, task) in enumerate(zip(texts, tasks, strict=True))
            if index not in bad
        ]
        return self._embed(prompted, bad, "query", Collector())

    def _embed_documents(
        self, texts: Sequence[str], collector: Collector, report: Report | None = None
    ) -> Flow[Collector]:
        check_list(texts, "document")
        texts = self._sendable(texts)
        bad = unsendable_texts(texts, "document")
        sendable = [text for index, text in enumerate(texts) if index not in bad] if bad else texts
        prompted = list(map(prompts.embedding_document, sendable))
        return self._embed(prompted, bad, "document", collector, report)

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
        # Nobody waits for one of many documents; a query may hold up an answer.
        bulk = len(unique) > (1 if noun == "document" else self._settings.batch_size)
        refused, fitted = yield from self._embed_unique(unique, collector, bulk)
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
            logger.warning("%s", truncation.of_texts(count, plural(noun)))
        collector.spread(rows, failures)
        if failures:
            raise failed(failures, count, noun, collector.vectors)
        return collector

    def _embed_unique(
        self, texts: list[str], collector: Collector, bulk: bool
    ) -> Flow[tuple[Failures, Fitted]]:
        """Embed different, sendable texts; failures by index into `texts`."""
        server = yield from self._server.get(self._ask_server)
        truncate, batch_size = self._settings.truncate, self._settings.batch_size
        fitted = yield from fit(server, texts, truncate=truncate)
        collector.make_room(len(texts), self._settings.dimensions or server.width)
        with collector.progress(len(texts) - len(fitted.refused)):
            failures = yield from self._send(server, fitted, texts, None, collector, bulk)
            for _ in range(_MOST_LESSONS):
                if not failures:
                    break
                learned = yield from relearn(
                    server, failures, texts, self._ask_again, truncate=truncate, batch_size=batch_size
                )
                if learned is None:
                    break
                server, again = learned
                self._server.value = server
                cut = yield from fit(server, [texts[i] for i in again], truncate=truncate, surely=True)
                fitted = fitted.with_again(again, cut)
                kept = {index: error for index, error in failures.items() if index not in again}
                failures = kept | (yield from self._send(server, fitted, texts, again, collector, bulk))
        return fitted.refused | failures, fitted

    def _smallest_request(self) -> Flow[object]:
        return self._embed_documents(["ready"], Collector())

    def _send(
        self,
        server: EmbeddingServer,
        fitted: Fitted,
        texts: Sequence[str],
        only: Sequence[int] | None,
        collector: Collector,
        bulk: bool,
    ) -> Flow[Failures]:
        """Send texts, all or those at some indexes, in requests of as many as the server takes."""
        most, known = self._settings.batch_size, server.most_texts.value
        call = partial(call_of, server, fitted, self._settings.dimensions, bulk)
        batches = batches_of(fitted, texts, known or most, only)
        ahead = len(batches) if known or len(batches) < _MANY_BATCHES else _SENT_AHEAD
        failures, refused = yield from send_batches(batches[:ahead], call, collector)
        several = any(len(batch) > 1 for batch in batches[:ahead])
        if known is None and several and (refused or any(map(may_lack, failures.values()))):
            known = yield from ask_most(server, most)
        rest = [index for batch in batches[ahead:] for index in batch]
        if (
            rest
            and len(failures) == sum(map(len, batches[:ahead]))
            and not any(map(may_lack, failures.values()))
        ):
            return failures | dict.fromkeys(rest, failures[batches[0][0]])  # nobody is there
        if rest:
            batches = batches_of(fitted, texts, known or most, rest)
            failures |= (yield from send_batches(batches, call, collector))[0]
        return failures

    def _ask_again(self) -> Flow[EmbeddingServer]:
        self._server.forget()
        return self._server.get(self._ask_server)

    def _ask_server(self) -> Flow[EmbeddingServer]:
        def ask(served: Served) -> Flow[EmbeddingServer]:
            return ask_embedding_server(served, self._settings, self._transport.root, _START)

        named = self._settings.model or self._first_model
        server = yield from ask_anywhere(
            self._transport, lambda listed: ask_served(named, "embedding", listed, ask)
        )
        self._first_model = server.model  # vectors of two models must not mix in one index
        return server


def server_of(client: EmbeddingClient) -> EmbeddingServer:
    """What a client knows of its server; asks it if it has not been asked."""
    return client._transport.run(client._server.get(client._ask_server))


def pinned(client: EmbeddingClient, model: str) -> EmbeddingClient:
    """The same client for one model only: both use one transport, and so one limit."""
    if client.settings.model == model:
        return client
    other = client.with_options(model=model)
    other._transport = client._transport
    return other


async def aembed_reporting(client: EmbeddingClient, texts: Sequence[str], report: Report) -> Vectors:
    """Embed documents; what was cut goes to `report` instead of the log."""
    return (await client._transport.arun(client._embed_documents(texts, Collector(), report))).vectors


def floats_of_one(vectors: Vectors) -> list[float]:
    """The numbers of the vector of one query."""
    numbers: list[float] = vectors[0].tolist()
    return numbers
