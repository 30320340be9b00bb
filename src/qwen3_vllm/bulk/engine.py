"""The work between inputs and output folder: embed parts chunk by chunk, keep each chunk, join them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qwen3_vllm._core.client import address_of
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.embedding.same_model import PROBE
from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm._core.text_files.rows import Row
from qwen3_vllm._core.text_files.sources import Source
from qwen3_vllm._core.usage import Usage, count_usage
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.folder import Folder
from qwen3_vllm.bulk.manifest import check_probe
from qwen3_vllm.bulk.parts import Fields, Part, Span
from qwen3_vllm.bulk.pipeline import ahead_of, chunked, embed_apart, pipelined
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.bulk.tables import Failure, Kept, Notes
from qwen3_vllm.errors import InvalidAnswerError, Qwen3VLLMError, WrongServerError

_STORING = 3  # chunks on their way to the disk, at most: a kill loses them


@dataclass(frozen=True)
class Job:
    """What an engine needs, here or on another host. Pickled, it carries no key."""

    client: EmbeddingClient
    sources: Sequence[Source]
    fields: Fields
    folder: Path
    model: str
    probe: Vectors

    @property
    def dimensions(self) -> int:
        return len(self.probe)


class Step(NamedTuple):
    """What was done: `rows` passed over, of which `kept` documents came from an earlier run.

    Usage and truncation are those of documents embedded or kept.
    """

    rows: int = 0
    embedded: int = 0
    kept: int = 0
    failed: int = 0
    characters: int = 0
    usage: Usage = Usage()
    truncation: Truncation = Truncation()

    def then(self, other: "Step") -> "Step":
        """Both together."""
        return Step(*map(add, self, other))


class _Chunk(NamedTuple):
    span: Span
    rows: list[Row | None]

    @property
    def is_last(self) -> bool:
        return self.span.last == self.span.part.last


class _Result(NamedTuple):
    ids: list[str]
    vectors: Vectors
    notes: Notes


def embed_parts(job: Job, parts: Sequence[Part]) -> Iterator[Step]:
    """Embed parts that are not done, and publish each; yields when a chunk is safe on the disk.

    Raises:
        WrongServerError: The server's model is not the one that the output was begun with.
        Qwen3VLLMError: The server failed. Every chunk that it answered stays.
    """
    folder = Folder(job.folder)

    async def work(chunk: _Chunk) -> tuple[_Chunk, _Result | None]:
        result = None
        if not folder.has_chunk(chunk.span):
            result = await _embed(job, chunk)
        if chunk.is_last:
            await _check_model(job)
        return chunk, result

    spans: list[Span] = []

    def store(chunk: _Chunk, result: _Result | None) -> Step:
        if result is None:
            step = step_before(len(chunk.rows), folder.count_chunk(chunk.span))
        else:
            folder.write_chunk(chunk.span, *result)
            step = _step(chunk, result)
        spans.append(chunk.span)
        if chunk.is_last:
            folder.publish(spans, model=job.model, dimensions=job.dimensions)
            spans.clear()
        return step

    try:
        # A disk may take half a second for a part: the server must not wait for it.
        with ThreadPoolExecutor(1, "qwen3-vllm-bulk-disk") as disk:
            storing: deque[Future[Step]] = deque()
            for chunk, result in pipelined(_chunks(job, parts), work, ahead_of(job.client)):
                storing.append(disk.submit(store, chunk, result))
                while storing and (len(storing) >= _STORING or storing[0].done()):
                    yield storing.popleft().result()
            while storing:
                yield storing.popleft().result()
    except WrongServerError:
        for part in parts:
            folder.discard_chunks(part)  # some may be the other model's
        raise


def _chunks(job: Job, parts: Sequence[Part]) -> Iterator[_Chunk]:
    readers: dict[int, Reader] = {}
    for part in parts:
        if part.source not in readers:  # parts come source by source
            readers = {part.source: Reader(job.sources[part.source], job.fields)}
        first = part.first
        for rows in chunked(readers[part.source].rows(part), _characters):
            readers[part.source].check_unchanged()
            last = first + len(rows) - 1
            yield _Chunk(Span(part, first, last), rows)
            first = last + 1


async def _embed(job: Job, chunk: _Chunk) -> _Result:
    documents = [row for row in chunk.rows if row is not None and row.problem is None]
    with count_usage() as count:
        vectors, errors, truncation = await embed_apart(job.client, [row.text for row in documents])
    if any(isinstance(error, InvalidAnswerError) for error in errors.values()):
        await _check_model(job)
    if len(vectors) == 0:
        vectors = np.empty((0, job.dimensions), np.float32)
    reasons = {row.number: row.problem for row in chunk.rows if row is not None and row.problem is not None}
    reasons |= {documents[index].number: _reason(error) for index, error in errors.items()}
    name = job.sources[chunk.span.part.source].name
    failures = [
        Failure(name, row.number, row.id, reasons[row.number])
        for row in chunk.rows
        if row is not None and row.number in reasons
    ]
    ids = [row.id for index, row in enumerate(documents) if index not in errors]
    return _Result(ids, vectors, Notes(failures, truncation, count.usage))


async def _check_model(job: Job) -> None:
    vectors = await job.client.aembed_documents([PROBE])
    check_probe(job.probe, vectors[0], address_of(job.client))


def _reason(error: Qwen3VLLMError) -> str:
    # The cause lacks "document 17", which counts from the start of a chunk.
    return str(error.__cause__ or error).encode("utf-8", "backslashreplace").decode()


def _step(chunk: _Chunk, result: _Result) -> Step:
    characters, notes = sum(map(_characters, chunk.rows)), result.notes
    failed = len(notes.failures)
    return Step(len(chunk.rows), len(result.ids), 0, failed, characters, notes.usage, notes.truncation)


def step_before(rows: int, kept: Kept) -> Step:
    """What an earlier run did with `rows` rows."""
    notes = kept.notes
    return Step(rows, 0, kept.rows, len(notes.failures), 0, notes.usage, notes.truncation)


def _characters(row: Row | None) -> int:
    return len(row.text) if row is not None and isinstance(row.text, str) else 0
