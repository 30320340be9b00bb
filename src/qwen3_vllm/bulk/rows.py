"""The documents of an input, part by part, and what keeps a row from being one."""

import csv
from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import orjson
import pyarrow.parquet as pq

from qwen3_vllm.bulk.parts import UNREADABLE, Fields, Part
from qwen3_vllm.bulk.records import Lines, Record, has_header, open_source, read_header, records
from qwen3_vllm.bulk.sources import Source
from qwen3_vllm.errors import ConfigurationError

_EXACT_FLOAT = 2.0**53  # from here up, numbers that were integers have lost digits
_PARQUET_BATCH = 1024


class Row(NamedTuple):
    """A document, or why there is none. `text` may be anything where `problem` is None."""

    number: int
    id: str
    text: object
    problem: str | None = None


class Reader:
    """Reads parts of one source; a part that follows the one before, without opening the file again.

    In gzip, any other part costs unpacking what is before it.
    """

    def __init__(self, source: Source, fields: Fields) -> None:
        self._source = source
        self._fields = fields
        self._next = 0
        self._rows: Iterator[Row | None] = iter(())

    def rows(self, part: Part) -> Iterator[Row | None]:
        """Yield one item for each row number of the part; None where there is no document.

        Raises:
            ConfigurationError: The source has become shorter, or unreadable.
        """
        if self._next != part.first:
            self._rows = self._rows_from(part)
        read = 0
        self._next = 0
        try:
            for row in islice(self._rows, part.last - part.first + 1):
                read += 1
                yield row
        except UNREADABLE as error:
            raise ConfigurationError(f"{self._source.name} cannot be read: {error}") from error
        self._next = part.first + read
        if self._next <= part.last:
            raise ConfigurationError(f"{self._source.name} was changed while it was read: it ends earlier")

    def _rows_from(self, part: Part) -> Iterator[Row | None]:
        if self._source.format == "parquet":
            yield from self._parquet_rows(part.first)
            return
        with open_source(self._source) as file:
            columns: list[str] = []
            if has_header(self._source.format):
                columns = read_header(records(self._source.format, Lines(file)))
            file.seek(part.offset)
            for number, record in enumerate(records(self._source.format, Lines(file)), part.first):
                yield self._row(number, record, columns)

    def _parquet_rows(self, first: int) -> Iterator[Row]:
        # Without pre-buffering, memory stays at some pages instead of a row group's columns.
        with pq.ParquetFile(self._source.path, pre_buffer=False, buffer_size=1 << 20) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            number, group = 1, 0
            while group < len(sizes) and number + sizes[group] <= first:
                number += sizes[group]
                group += 1
            id_field = self._fields.id_among(file.schema_arrow.names)
            columns = [self._fields.text, *([id_field] if id_field else [])]
            groups = range(group, len(sizes))
            for batch in file.iter_batches(_PARQUET_BATCH, row_groups=groups, columns=columns):
                kept = batch.slice(min(max(first - number, 0), batch.num_rows))
                texts = kept.column(self._fields.text).to_pylist()
                ids = kept.column(id_field).to_pylist() if id_field else [None] * len(texts)
                yield from map(self._document, count(number + batch.num_rows - len(texts)), ids, texts)
                number += batch.num_rows

    def _row(self, number: int, record: Record, columns: list[str]) -> Row | None:
        if isinstance(record, csv.Error):
            return self._without_text(number, f"is not CSV: {record}")
        if isinstance(record, list):
            return self._csv_row(number, record, columns) if record else None
        if number == 1:
            record = record.removeprefix(b"\xef\xbb\xbf")
        if not record.strip():
            return None
        if self._source.format == "jsonl":
            return self._json_row(number, record)
        return self._document(number, None, record.strip(b"\r\n").decode(errors="surrogateescape"))

    def _csv_row(self, number: int, record: list[str], columns: list[str]) -> Row:
        if len(record) != len(columns):
            return self._without_text(number, f"has {len(record)} fields, and the header {len(columns)}")
        id_field = self._fields.id_among(columns)
        id = record[columns.index(id_field)] if id_field else None
        return self._document(number, id or None, record[columns.index(self._fields.text)])

    def _json_row(self, number: int, line: bytes) -> Row:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return self._without_text(number, f"is not JSON: {error}")
        if not isinstance(record, dict):
            return self._without_text(number, f"is not a JSON object but {type(record).__name__}")
        id = record.get(self._fields.id or "id")
        if self._fields.text not in record:
            return self._without_text(number, f"has no field {self._fields.text!r}", id)
        return self._document(number, id, record[self._fields.text])

    def _document(self, number: int, id: object, text: object) -> Row:
        if not isinstance(id, str | int | float | None):
            return self._without_text(number, f"has an id that is no string or number but {_kind(id)}")
        if isinstance(id, float) and not abs(id) < _EXACT_FLOAT:
            return self._without_text(number, "has an id that is no exact number: write it as a string")
        if isinstance(id, str) and not _is_utf8(id):
            return self._without_text(number, "has an id that is not UTF-8")
        if isinstance(text, str) and not _is_utf8(text):
            return self._without_text(number, "is not UTF-8, or has lone surrogates", id)
        return Row(number, self._name(number) if id is None else str(id), text)

    def _without_text(self, number: int, problem: str, id: object = None) -> Row:
        usable = isinstance(id, str | int) and _is_utf8(str(id))
        return Row(number, str(id) if usable else self._name(number), None, problem)

    def _name(self, number: int) -> str:
        return f"{self._source.name}:{number}"


def _kind(value: object) -> str:
    return type(value).__name__


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
