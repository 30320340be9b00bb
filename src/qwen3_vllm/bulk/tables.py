"""What the files of an output hold: vectors in Arrow, and in their metadata what became of the other rows."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm._core.text_files.sources import path_bytes
from qwen3_vllm._core.usage import Usage
from qwen3_vllm._core.vllm_api.embeddings import Vectors

_FAILURES = b"qwen3_vllm.failures"
_TRUNCATION = b"qwen3_vllm.truncation"
_USAGE = b"qwen3_vllm.usage"
_ROW_GROUP_ROWS = 4096
_COMPRESSION = {"id": "zstd", "embedding.list.element": "none", "model": "zstd", "instruction": "zstd"}
# What reading a file raises that is not as it was written.
DAMAGED = (OSError, pa.ArrowException, ValueError, TypeError, KeyError)


class Failure(NamedTuple):
    """A row that could not be embedded."""

    input: str
    row: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notes:
    """What a file says of its rows beside their vectors: which failed, which were cut, what they cost."""

    failures: list[Failure] = field(default_factory=list)
    truncation: Truncation = field(default_factory=Truncation)
    usage: Usage = field(default_factory=Usage)

    def __add__(self, other: "Notes") -> "Notes":
        return Notes(
            self.failures + other.failures, self.truncation + other.truncation, self.usage + other.usage
        )

    def to_metadata(self) -> dict[bytes, bytes]:
        return {
            _FAILURES: orjson.dumps([tuple(failure) for failure in self.failures]),
            _TRUNCATION: orjson.dumps(astuple(self.truncation)),
            _USAGE: orjson.dumps(astuple(self.usage)),
        }

    @classmethod
    def of(cls, schema: Any) -> "Notes":
        """Read them from a schema; one that an earlier release wrote does not say what it cost."""
        metadata = schema.metadata or {}
        failures = [Failure(*fields) for fields in orjson.loads(metadata[_FAILURES])]
        truncation = Truncation(*orjson.loads(metadata.get(_TRUNCATION, b"[]")))
        cost = metadata.get(_USAGE)
        return cls(failures, truncation, Usage(uncounted=1) if cost is None else Usage(*orjson.loads(cost)))


class Kept(NamedTuple):
    """What is in a file: `rows` with vectors, and notes."""

    rows: int
    notes: Notes


def write_chunk(path: Path, ids: Sequence[str], vectors: Vectors, notes: Notes) -> None:
    """Write a piece of a part."""
    schema = _chunk_schema(vectors.shape[1]).with_metadata(notes.to_metadata())
    table = pa.Table.from_arrays([pa.array(ids, pa.string()), _as_lists(vectors)], schema=schema)
    with pa.OSFile(path_bytes(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(table)


def write_part(path: Path, chunks: Sequence[Path], *, model: str, dimensions: int) -> None:
    """Join the chunks of a part, which cover all of it in order."""
    notes = sum((Notes.of(_open_chunk(each).schema) for each in chunks), Notes())
    schema = _part_schema(dimensions).with_metadata(notes.to_metadata())
    with (
        pa.OSFile(path_bytes(path), "wb") as file,
        pq.ParquetWriter(file, schema, use_dictionary=["model"], compression=_COMPRESSION) as writer,
    ):
        for table in _gathered(chunks):
            writer.write_table(_with_constants(table, schema, model, dimensions))


def count_chunk(path: Path) -> Kept:
    """Count what is in a chunk that is there."""
    chunk = _open_chunk(path)
    rows = sum(chunk.get_batch(index).num_rows for index in range(chunk.num_record_batches))
    return Kept(rows, Notes.of(chunk.schema))


def check_chunk(path: Path) -> Kept | None:
    """Read a chunk to its end; None if it is not there, or not whole."""
    try:
        chunk = _open_chunk(path)
        table = chunk.read_all().select(["id", "embedding"])
        table.validate(full=True)
        return Kept(table.num_rows, Notes.of(chunk.schema))
    except DAMAGED:
        return None


def count_part(path: Path) -> Kept:
    """Count what is in a part; raises one of DAMAGED if it is not as it was written."""
    with pa.OSFile(path_bytes(path)) as file:
        metadata = pq.read_metadata(file)
    return Kept(metadata.num_rows, Notes.of(metadata.schema.to_arrow_schema()))


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
