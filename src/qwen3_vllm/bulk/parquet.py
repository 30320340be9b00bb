"""Parquet: columns of text and of ids, and their rows, whatever part of the file is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwen3_vllm._core.text_files.sources import Source, path_bytes
from qwen3_vllm.errors import ConfigurationError

_BATCH = 1024
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")


class Column(NamedTuple):
    """A column by the names that lead to it, several where it is inside structs."""

    path: tuple[str, ...]
    type: Any


class Value(NamedTuple):
    """What a row holds, or why it cannot be read."""

    number: int
    id: object
    text: object
    problem: str | None = None


@contextmanager
def open_parquet(source: Source) -> Iterator[pq.ParquetFile]:
    with pa.OSFile(path_bytes(source.path)) as file:
        # Without pre-buffering, memory stays at some pages instead of a row group's columns.
        yield pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)


def find_column(source: Source, schema: Any, name: str) -> Column | None:
    """Find a column by its name, or by names with dots between them inside structs.

    Raises:
        ConfigurationError: Several columns are called so.
    """
    fields = [field for field in schema if field.name == name]
    if len(fields) > 1:
        raise ConfigurationError(
            f"{source.name} has {len(fields)} columns called {name!r}: rename all but one"
        )
    if fields:
        return Column((name,), fields[0].type)
    place = name.find(".")
    while place >= 0:
        outer = find_column(source, schema, name[:place])
        if outer is not None and pa.types.is_struct(outer.type):
            inner = find_column(source, outer.type, name[place + 1 :])
            if inner is not None:
                return Column((*outer.path, *inner.path), inner.type)
        place = name.find(".", place + 1)
    return None


def is_text(kind: Any) -> bool:
    """Whether values are strings, or bytes of which some writers say no more."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return str(kind) in _TEXTS


def is_id(kind: Any) -> bool:
    """Whether values are strings, or of what is written as one without loss."""
    types = pa.types
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return is_text(kind) or numbers or _is_written_by_arrow(kind)


def read_values(source: Source, text: Column, id: Column | None, first: int) -> Iterator[Value]:
    """Yield each row from number `first` on. The rows that a damaged page takes with it are named as such.

    Raises:
        OSError: The disk failed, which is not damage to the file.
    """
    with open_parquet(source) as file:
        names = [".".join(column.path) for column in (text, id) if column is not None]
        start = 1
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if end > first:
                yield from _read_group(file, group, names, text, id, range(start, end), first)
            start = end


def _read_group(
    file: pq.ParquetFile,
    group: int,
    names: list[str],
    text: Column,
    id: Column | None,
    numbers: range,
    first: int,
) -> Iterator[Value]:
    problem = "cannot be read: its row group ends earlier than it says"
    done = 0
    try:
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=names):
            batch = batch.slice(0, len(numbers) - done)
            skipped = min(max(first - numbers.start - done, 0), batch.num_rows)
            kept = batch.slice(skipped)
            ids = _values(kept, id) if id is not None else repeat(None)
            yield from map(Value, numbers[done + skipped :], ids, _values(kept, text))
            done += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        problem = f"cannot be read: {error}"
    for number in numbers[done:]:
        if number >= first:
            yield Value(number, None, None, problem)


def _values(batch: pa.RecordBatch, column: Column) -> list[Any]:
    array = batch.column(batch.schema.get_field_index(column.path[0]))
    for name in column.path[1:]:
        array = pc.struct_field(array, [array.type.get_field_index(name)])
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_written_by_arrow(array.type):
        array = array.cast(pa.string())
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        buffers = (each.as_buffer() for each in array)
        values = [None if buffer is None else buffer.to_pybytes() for buffer in buffers]
    # What is not UTF-8 becomes surrogates, which the row's reader finds.
    return [each.decode(errors="surrogateescape") if isinstance(each, bytes) else each for each in values]


def _is_written_by_arrow(kind: Any) -> bool:
    return bool(pa.types.is_temporal(kind) or pa.types.is_decimal(kind))
