"""EmbeddingClient: texts in, unit vectors out, from a vLLM server of Qwen3-Embedding."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from pydantic import PrivateAttr

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.batches import failed, plan, send_batches
from qwen3_vllm._core.cache_keys import CacheRole, cache_namespace
from qwen3_vllm._core.discovery import ask_served
from qwen3_vllm._core.embedding.probe import EmbeddingServer, ask_embedding_server
from qwen3_vllm._core.embedding.truncation import Fitted, Truncation, fit, truncation_of
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.texts import Failures, check_text, unsendable_texts
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.embeddings import Vectors, embed

Lists = list[list[float]]
Report = Callable[[Truncation], None]

logger = logging.getLogger(__name__)

_START = "qwen3-vllm serve embedding"
# After these the server may have been restarted with another set-up: it is asked before the next call.
_MAY_BE_ANOTHER_SERVER = (errors.ModelNotFoundError, errors.InvalidAnswerError, errors.BadRequestError)


class EmbeddingClient(EmbeddingSettings):
    """Embeds queries and documents; the options are those of `EmbeddingSettings`.

    Sync and async, safe in threads, in any event loop and after a fork; nothing must be closed. Nothing is
    sent before the first call.
    """

    _transport: Transport = PrivateAttr()
    _server: AskedOnce[EmbeddingServer] = PrivateAttr(default_factory=AskedOnce)
    _first_model: str | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        self._transport = Transport(self, start_command=_START)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; with other options, which are checked, the copy asks its server anew."""
        return type(self)(**{**dict(self), **update}) if update else super().model_copy(deep=deep)

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
        return self._transport.run(self._embed_queries(texts, instruction))

    async def aembed_queries(
        self, texts: Sequence[str], *, instruction: str | Sequence[str] | None = None
    ) -> Vectors:
        """Embed queries; see `embed_queries`."""
        return await self._transport.arun(self._embed_queries(texts, instruction))

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Embed documents, without an instruction; shape, order and errors as in `embed_queries`.

        Texts that occur more than once are sent once. `show_progress` draws a bar on standard error.
        """
        return self._transport.run(self._embed_documents(texts, show_progress))

    async def aembed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Embed documents; see `embed_documents`."""
        return await self._transport.arun(self._embed_documents(texts, show_progress))

    def embed_documents_as_lists(self, texts: Sequence[str], *, show_progress: bool = False) -> Lists:
        """Embed documents into lists of floats, as frameworks want them; else as `embed_documents`.

        Floats cost some 15 µs a vector of 1,024. They are made while other requests are under way.
        """
        lists: Lists = []
        self._transport.run(self._embed_documents(texts, show_progress, lists))
        return lists

    async def aembed_documents_as_lists(self, texts: Sequence[str], *, show_progress: bool = False) -> Lists:
        """Embed documents into lists of floats; see `embed_documents_as_lists`."""
        lists: Lists = []
        await self._transport.arun(self._embed_documents(texts, show_progress, lists))
        return lists

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
        task = self.instruction if instruction is None else instruction
        check_text(task, "the instruction")
        server = yield from self._server.get(self._ask_server)
        return cache_namespace(role, server.model, server.root, task, self)

    def _embed_queries(self, texts: Sequence[str], instruction: str | Sequence[str] | None) -> Flow[Vectors]:
        task = self.instruction if instruction is None else instruction
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
        return self._embed(prompted, bad, "query")

    def _embed_documents(
        self,
        texts: Sequence[str],
        show_progress: bool,
        lists: Lists | None = None,
        report: Report | None = None,
    ) -> Flow[Vectors]:
        bad = unsendable_texts(texts, "document")
        sendable = [text for index, text in enumerate(texts) if index not in bad] if bad else texts
        prompted = list(map(prompts.embedding_document, sendable))
        return self._embed(prompted, bad, "document", show_progress, lists, report)

    def _embed(
        self,
        prompted: list[str],
        unsendable: Failures,
        noun: str,
        show_progress: bool = False,
        lists: Lists | None = None,
        report: Report | None = None,
    ) -> Flow[Vectors]:
        """Embed prompts: those of all texts but the unsendable ones, which are failures by index.

        Args:
            lists: Empty at first, has the same numbers in the end.
            report: Is given what was cut, if anything was; None logs one warning.
        """
        count = len(prompted) + len(unsendable)
        if count == 0:
            return np.empty((0, self.dimensions or 0), np.float32)
        unique = dict.fromkeys(prompted)
        vectors, refused, fitted = yield from self._embed_unique(list(unique), show_progress, lists)
        plain = fitted is None or not (fitted.cut or fitted.left_to_server)
        if vectors is not None and not refused and plain and len(unique) == count:
            return vectors
        row_of = {text: row for row, text in enumerate(unique)}
        places = map(row_of.__getitem__, prompted)
        rows = [-1 if index in unsendable else next(places) for index in range(count)]
        failures = unsendable | {index: refused[row] for index, row in enumerate(rows) if row in refused}
        truncation = truncation_of(fitted, [row for index, row in enumerate(rows) if index not in failures])
        if truncation and report is not None:
            report(truncation)
        elif truncation:
            plural = "queries" if noun == "query" else "documents"
            logger.warning("%s", truncation.of_texts(count, plural))
        if vectors is not None:
            vectors = vectors[rows]
            vectors[list(failures)] = np.nan
        if failures:
            raise failed(failures, count, noun, vectors)
        assert vectors is not None
        if lists is not None:
            lists[:] = [lists[row].copy() for row in rows]  # of a text that occurs twice, two lists
        return vectors

    def _embed_unique(
        self, texts: list[str], show_progress: bool, lists: Lists | None
    ) -> Flow[tuple[Vectors | None, Failures, Fitted | None]]:
        """Embed different, sendable texts; failures by index into `texts`."""
        if not texts:
            return None, {}, None
        server = yield from self._server.get(self._ask_server)
        fitted = yield from fit(server, texts, truncate=self.truncate)
        inputs, refused, _, left_to_server, limit = fitted
        sizes = list(map(len, texts))
        vectors = np.empty((len(texts), self.dimensions or server.width), np.float32)
        if lists is not None:
            lists[:] = [[]] * len(texts)

        def call(batch: list[int]) -> Call[Vectors]:
            return embed(
                server.model,
                inputs[batch[0] : batch[-1] + 1] if adjoin(batch) else [inputs[index] for index in batch],
                encoding=server.encoding,
                dtype=server.dtype,
                dimensions=self.dimensions if server.cuts else None,
                width=server.width,
                keep=self.dimensions,
                truncate_to=limit if batch[0] in left_to_server else None,
                out=rows_of(batch),
            )

        def rows_of(batch: list[int]) -> Vectors | None:
            # A view, where there can be one: writing into it saves an array as large as the answer.
            return vectors[batch[0] : batch[-1] + 1] if adjoin(batch) else None

        def adjoin(batch: list[int]) -> bool:
            return batch[-1] - batch[0] + 1 == len(batch)

        def store(batch: list[int], answer: Vectors) -> None:
            if rows_of(batch) is None:
                vectors[batch] = answer
            if lists is not None:
                for index, numbers in zip(batch, answer.tolist(), strict=True):
                    lists[index] = numbers
            advance(len(batch))

        # A request holds texts, or token ids, or texts that the server cuts.
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for index, text in enumerate(inputs):
            if index not in refused:
                kinds.setdefault((isinstance(text, str), index in left_to_server), []).append(index)
        batches = [batch for indexes in kinds.values() for batch in plan(indexes, sizes, self.batch_size)]
        with _progress(len(texts) - len(refused), show_progress) as advance:
            failures = yield from send_batches(batches, call, store)
        if any(isinstance(error, _MAY_BE_ANOTHER_SERVER) for error in failures.values()):
            self._server.forget()
        return vectors, refused | failures, fitted

    def _ask_server(self) -> Flow[EmbeddingServer]:
        served = yield from ask_served(self.model or self._first_model)
        self._first_model = served.model  # vectors of two models must not mix in one index
        return (yield from ask_embedding_server(served, self, self._transport.root, _START))


async def aembed_reporting(client: EmbeddingClient, texts: Sequence[str], report: Report) -> Vectors:
    """Embed documents; what was cut goes to `report` instead of the log."""
    return await client._transport.arun(client._embed_documents(texts, False, report=report))


def floats_of_one(vectors: Vectors) -> list[float]:
    """The numbers of the vector of one query."""
    numbers: list[float] = vectors[0].tolist()
    return numbers


@contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; yields what to call with a number of texts that are done."""
    if not show:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda count: bar.advance(task, count)
