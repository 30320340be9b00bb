"""The output on disk. Whatever moment a run is killed at, every file that is there is whole.

part-00000-000000000001.parquet   rows of input 0 from row 1 on; appears when it is complete
errors.jsonl                      the rows that could not be embedded, if there are any
_manifest.json                    what the output was made from, with which options
_progress/                        chunks of parts that are not complete yet
_lock                             held while a run writes
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm._core.folder_lock import LOCK, locked_folder
from qwen3_vllm._core.text_files.sources import path_bytes
from qwen3_vllm._core.usage import Usage
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.manifest import MANIFEST
from qwen3_vllm.bulk.parts import Part, Span
from qwen3_vllm.errors import ConfigurationError

_FAILURES = b"qwen3_vllm.failures"
_TRUNCATION = b"qwen3_vllm.truncation"
_USAGE = b"qwen3_vllm.usage"
_ROW_GROUP_ROWS = 4096
# What reading a file raises that is not as it was written.
_DAMAGED = (OSError, pa.ArrowException, ValueError, TypeError, KeyError)
STDIN_COPY = "_stdin"
_PROGRESS = "_progress"


class Failure(NamedTuple):
    """A row that could not be embedded."""

    input: str
    row: int
    id: str
    reason: str


class Counts(NamedTuple):
    """What a chunk or a part holds: documents embedded, rows that failed, and documents that were cut."""

    embedded: int
    failed: int
    truncation: Truncation
    usage: Usage


class Folder:
    """Writes and reads one output folder; `locked` guards it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.progress = path / _PROGRESS

    def is_done(self, part: Part) -> bool:
        return self._part_path(part).exists()

    def has_chunk(self, span: Span) -> bool:
        """Whether a chunk is there and whole: a disk may have lost some of it."""
        return _read_chunk(self._chunk_path(span)) is not None

    def write_chunk(
        self,
        span: Span,
        ids: Sequence[str],
        vectors: Vectors,
        failures: Sequence[Failure],
        truncation: Truncation,
        usage: Usage,
    ) -> None:
        """Keep a piece of a part, with its failures."""
        schema = _chunk_schema(vectors.shape[1]).with_metadata(_metadata(failures, truncation, usage))
        table = pa.Table.from_arrays([pa.array(ids, pa.string()), _as_lists(vectors)], schema=schema)
        with (
            _appearing(self._chunk_path(span), self.progress) as path,
            pa.OSFile(path_bytes(path), "wb") as file,
            pa.ipc.new_file(file, schema) as writer,
        ):
            writer.write_table(table)

    def publish(self, chunks: Sequence[Span], *, model: str, dimensions: int) -> None:
        """Join the chunks of a part, which cover all of it in order, into its file, and drop them."""
        part = chunks[0].part
        paths = [self._chunk_path(span) for span in chunks]
        schemas = [_open_chunk(path).schema for path in paths]
        failures = [failure for schema in schemas for failure in _failures(schema)]
        truncation = sum(map(_truncation, schemas), Truncation())
        usage = sum(map(_usage, schemas), Usage())
        schema = _part_schema(dimensions).with_metadata(_metadata(failures, truncation, usage))
        with (
            _appearing(self._part_path(part), self.progress) as path,
            pa.OSFile(path_bytes(path), "wb") as file,
            pq.ParquetWriter(file, schema, use_dictionary=["model"], compression=_COMPRESSION) as writer,
        ):
            for table in _gathered(paths):
                writer.write_table(_with_constants(table, schema, model, dimensions))
        self.discard_chunks(part)

    def discard_chunks(self, part: Part) -> None:
        for path in self.progress.glob(f"{part.name}-*"):
            path.unlink()

    def discard_leftovers(self, parts: Sequence[Part]) -> None:
        """Remove what a killed run left half written, or no longer needs."""
        done = {part.name for part in parts if self.is_done(part)}
        for path in self.progress.iterdir():
            if path.suffix != ".arrow" or "-".join(path.stem.split("-")[:2]) in done:
                path.unlink()

    def count_chunk(self, span: Span) -> Counts:
        """Count a chunk that is there."""
        chunk = _open_chunk(self._chunk_path(span))
        rows = sum(chunk.get_batch(index).num_rows for index in range(chunk.num_record_batches))
        schema = chunk.schema
        return Counts(rows, len(_failures(schema)), _truncation(schema), _usage(schema))

    def count(self, part: Part) -> Counts:
        """Count a part that is done.

        Raises:
            ConfigurationError: Its file is damaged.
        """
        rows, failures, truncation, usage = self._read_part(part)
        return Counts(rows, len(failures), truncation, usage)

    def _read_part(self, part: Part) -> tuple[int, list[Failure], Truncation, Usage]:
        path = self._part_path(part)
        try:
            with pa.OSFile(path_bytes(path)) as file:
                metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
            return metadata.num_rows, _failures(schema), _truncation(schema), _usage(schema)
        except _DAMAGED as error:
            raise ConfigurationError(
                f"{path} is damaged: remove it, and run the same again to make it anew ({error})"
            ) from error

    def write_errors(self, parts: Sequence[Part]) -> None:
        """Write errors.jsonl anew, in the order of the inputs, from what parts and chunks know."""
        target = self.path / "errors.jsonl"
        found = False
        with _appearing(target, self.progress) as path, path.open("wb") as file:
            for failure in self._all_failures(parts):
                found = True
                file.write(orjson.dumps(failure._asdict(), option=orjson.OPT_APPEND_NEWLINE))
        if not found:
            target.unlink()

    def truncation(self, parts: Sequence[Part]) -> Truncation:
        """What was cut, as parts and chunks know."""
        return sum((truncation for _, truncation, _ in self._records(parts)), Truncation())

    def usage(self, parts: Sequence[Part]) -> Usage:
        """What the documents of the output cost, as parts and chunks know."""
        return sum((usage for *_, usage in self._records(parts)), Usage())

    def _all_failures(self, parts: Sequence[Part]) -> Iterator[Failure]:
        for failures, *_ in self._records(parts):
            yield from failures

    def _records(self, parts: Sequence[Part]) -> Iterator[tuple[list[Failure], Truncation, Usage]]:
        for part in parts:
            if self.is_done(part):
                yield self._read_part(part)[1:]
            else:
                chunks = map(_read_chunk, sorted(self.progress.glob(f"{part.name}-*.arrow")))
                yield from (chunk[1:] for chunk in chunks if chunk is not None)

    def write_manifest(self, manifest: bytes) -> None:
        with _appearing(self.path / MANIFEST, self.progress) as path:
            path.write_bytes(manifest)

    def read_manifest(self) -> bytes | None:
        path = self.path / MANIFEST
        return path.read_bytes() if path.exists() else None

    def _part_path(self, part: Part) -> Path:
        return self.path / f"part-{part.name}.parquet"

    def _chunk_path(self, span: Span) -> Path:
        return self.progress / f"{span.name}.arrow"


@contextmanager
def locked(path: Path) -> Iterator[Folder]:
    """Make or open an output folder for one run at a time; the lock goes with the process.

    Raises:
        ConfigurationError: Another run writes there, or the folder holds something else.
    """
    folder = Folder(path)
    try:
        strangers = _strangers(path)
        if strangers:
            raise ConfigurationError(
                f"{path} holds {strangers[0]!r} and no output of this command: give a new folder"
            )
        folder.progress.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {path}: {error.strerror}") from error
    with locked_folder(path):
        yield folder


def _strangers(path: Path) -> list[str]:
    """What lies in a folder that is not an output, and is none of ours."""
    if not path.is_dir() or (path / MANIFEST).exists():
        return []
    return sorted(each.name for each in path.iterdir() if each.name not in (STDIN_COPY, LOCK, _PROGRESS))


_COMPRESSION = {"id": "zstd", "embedding.list.element": "none", "model": "zstd", "instruction": "zstd"}


def _chunk_schema(dimensions: int) -> pa.Schema:
    return pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32(), dimensions))])


def _part_schema(dimensions: int) -> pa.Schema:
    constants = [("model", pa.string()), ("instruction", pa.string()), ("dimensions", pa.int32())]
    return pa.schema([*_chunk_schema(dimensions), *(pa.field(name, kind) for name, kind in constants)])


def _as_lists(vectors: Vectors) -> pa.Array:
    flat = np.ascontiguousarray(vectors).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.shape[1])


def _with_constants(table: pa.Table, schema: pa.Schema, model: str, dimensions: int) -> pa.Table:
    rows = table.num_rows
    constants = [
        pa.repeat(pa.scalar(model, pa.string()), rows),
        pa.nulls(rows, pa.string()),  # documents are embedded without an instruction
        pa.repeat(pa.scalar(dimensions, pa.int32()), rows),
    ]
    return pa.Table.from_arrays([*table.columns, *constants], schema=schema)


def _gathered(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Chunks joined to tables of about _ROW_GROUP_ROWS."""
    tables: list[pa.Table] = []
    for path in paths:
        tables.append(_open_chunk(path).read_all().replace_schema_metadata(None))
        if sum(table.num_rows for table in tables) >= _ROW_GROUP_ROWS:
            yield pa.concat_tables(tables)
            tables = []
    if tables:
        yield pa.concat_tables(tables)


def _open_chunk(path: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(path_bytes(path)))


def _read_chunk(path: Path) -> tuple[pa.Table, list[Failure], Truncation, Usage] | None:
    """What a chunk holds; None if it is not there, or not whole."""
    try:
        chunk = _open_chunk(path)
        table = chunk.read_all().select(["id", "embedding"])
        table.validate(full=True)
        return table, _failures(chunk.schema), _truncation(chunk.schema), _usage(chunk.schema)
    except _DAMAGED:
        return None


def _metadata(failures: Sequence[Failure], truncation: Truncation, usage: Usage) -> dict[bytes, bytes]:
    return {
        _FAILURES: orjson.dumps([tuple(failure) for failure in failures]),
        _TRUNCATION: orjson.dumps(astuple(truncation)),
        _USAGE: orjson.dumps(astuple(usage)),
    }


def _usage(schema: Any) -> Usage:
    """What a chunk or part cost; written by an earlier release, it does not say."""
    written = (schema.metadata or {}).get(_USAGE)
    return Usage(*orjson.loads(written)) if written is not None else Usage(uncounted=1)


def _failures(schema: Any) -> list[Failure]:
    return [Failure(*fields) for fields in orjson.loads((schema.metadata or {})[_FAILURES])]


def _truncation(schema: Any) -> Truncation:
    return Truncation(*orjson.loads((schema.metadata or {}).get(_TRUNCATION, b"[]")))


@contextmanager
def _appearing(target: Path, scratch: Path) -> Iterator[Path]:
    """Yield a path to write to; the file then appears at `target`, whole and on the disk, or not at all."""
    path = scratch / f"{target.name}.{uuid4().hex}.tmp"
    try:
        yield path
    except Exception:  # such as a full disk, on which it would go on taking space
        path.unlink(missing_ok=True)
        raise
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(target)
    if sys.platform != "win32":
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
