"""Documents to vectors, in order, a few calls ahead of the consumer so that the server never waits for it."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from qwen3_vllm._core.embedding.client import EmbeddingClient, aembed_reporting
from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm._core.settings import BATCH_SIZE, MAX_CONCURRENCY
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.errors import InputError, InvalidAnswerError, Qwen3VLLMError

Id = TypeVar("Id")
T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

# A chunk is half of what the client's defaults have in flight: 16 requests of 32. Two fill the server; a
# third keeps it full while the last requests of a chunk wait at the busier HTTP process. More gains nothing,
# and a kill would lose it.
CHUNK_DOCUMENTS = 512
CHUNK_CHARACTERS = 4_000_000
_LEAST_AHEAD = 3


def embed_stream(
    documents: Iterable[tuple[Id, str]],
    client: EmbeddingClient,
    *,
    on_failure: Callable[[Id, Qwen3VLLMError], None] | None = None,
) -> Generator[tuple[list[Id], Vectors], None, None]:
    """Embed documents as they come, in order, in memory that does not grow with their number.

    Args:
        documents: Pairs of an id of any type and a text; read only a little ahead of what is yielded.
        client: As many of its calls run at once as fill its `max_concurrency`, and one more.
        on_failure: Called with the id and the error of a document that cannot be embedded, which is then
            left out. None: the error is raised.

    One warning at the end says how many documents were cut to the server's context.

    Yields:
        Ids, and their vectors: float32, shape (len(ids), dimensions), L2-normalised rows. At most
        `CHUNK_DOCUMENTS` at a time.

    Raises:
        Qwen3VLLMError: The server failed. What was yielded before is complete up to some document.
    """

    async def embed(chunk: list[tuple[Id, str]]) -> tuple[list[Id], Vectors, Truncation]:
        texts = [text for _, text in chunk]
        if on_failure is None:
            vectors, truncation = await _embed(client, texts)
            return [id for id, _ in chunk], vectors, truncation
        vectors, failures, truncation = await embed_apart(client, texts)
        for index, error in failures.items():
            on_failure(chunk[index][0], error)
        ids = [id for index, (id, _) in enumerate(chunk) if index not in failures]
        return ids, vectors, truncation

    chunks = chunked(_pairs(documents), lambda document: _length(document[1]))
    truncated, total = Truncation(), 0
    try:
        for ids, vectors, truncation in pipelined(chunks, embed, ahead_of(client)):
            truncated += truncation
            total += len(ids)
            if ids:
                yield ids, vectors
    finally:
        if truncated:
            logger.warning("%s", truncated.of_texts(total, "document"))


def _pairs(documents: Iterable[tuple[Id, str]]) -> Iterator[tuple[Id, str]]:
    for index, document in enumerate(documents):
        if not isinstance(document, tuple | list) or len(document) != 2:
            raise InputError(f"document {index} must be (id, text), not {type(document).__name__}")
        yield document


async def embed_apart(
    client: EmbeddingClient, texts: Sequence[object]
) -> tuple[Vectors, dict[int, Qwen3VLLMError], Truncation]:
    """Embed the texts that can be embedded.

    Returns:
        The vectors of those, in order; by index why the others could not be; and what was cut.

    Raises:
        Qwen3VLLMError: The server failed, so that nothing can be said about single texts.
    """
    reported: list[Truncation] = []
    try:
        vectors = await aembed_reporting(client, texts, reported.append)  # type: ignore[arg-type]  # it checks
        return vectors, {}, sum(reported, Truncation())
    except Qwen3VLLMError as error:
        failures = dict(error.errors)
        answered = error.partial is not None and not np.isnan(error.partial[:, 0]).all()
        # Nonsense for a few texts is about them: each was asked for alone. For all, it is the server's.
        of_texts = (InputError, InvalidAnswerError) if answered else (InputError,)
        if not failures or not all(isinstance(each, of_texts) for each in failures.values()):
            raise
        if error.partial is None:
            return np.empty((0, client.settings.dimensions or 0), np.float32), failures, Truncation()
        kept = [index for index in range(len(texts)) if index not in failures]
        return error.partial[kept], failures, sum(reported, Truncation())


async def _embed(client: EmbeddingClient, texts: Sequence[str]) -> tuple[Vectors, Truncation]:
    reported: list[Truncation] = []
    vectors = await aembed_reporting(client, texts, reported.append)
    return vectors, sum(reported, Truncation())


def chunked(items: Iterable[T], characters: Callable[[T], int]) -> Iterator[list[T]]:
    """Group items, in order, by CHUNK_DOCUMENTS and CHUNK_CHARACTERS; the same items give the same groups."""
    chunk: list[T] = []
    size = 0
    for item in items:
        length = characters(item)
        if chunk and (len(chunk) == CHUNK_DOCUMENTS or size + length > CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk


def ahead_of(client: EmbeddingClient) -> int:
    """Chunks to work on at once: they fill all that the client may have in flight, and one is more."""
    in_flight = client.settings.max_concurrency * client.settings.batch_size
    return max(_LEAST_AHEAD, 1 + -(-2 * in_flight // (MAX_CONCURRENCY * BATCH_SIZE)))


def pipelined(
    items: Iterable[T], work: Callable[[T], Coroutine[Any, Any, R]], ahead: int = _LEAST_AHEAD
) -> Iterator[R]:
    """Yield the result of `work` for each item, in order, with up to `ahead` of them running.

    Items are read by the caller's thread, one when a result is taken. An error, or closing the iterator,
    cancels what runs.
    """
    running: deque[Any] = deque()
    with _event_loop() as loop:
        for item in items:
            running.append(asyncio.run_coroutine_threadsafe(work(item), loop))
            if len(running) == ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread: the caller may be sync, or run in a loop of its own, as notebooks do."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="qwen3-vllm-bulk", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _length(text: object) -> int:
    return len(text) if isinstance(text, str) else 0
