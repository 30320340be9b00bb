"""The documents of an input, part by part, and what keeps a row from being one."""

import csv
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import orjson

from qwen3_vllm._core.fields import reach
from qwen3_vllm.bulk.parquet import Value, find_column, open_parquet, read_values
from qwen3_vllm.bulk.parts import UNREADABLE, Fields, Part
from qwen3_vllm.bulk.records import Lines, Record, has_header, open_source, read_header, records
from qwen3_vllm.bulk.sources import Source, state_of
from qwen3_vllm.errors import InputError

_EXACT_FLOAT = 2.0**53  # from here up, numbers that were integers have lost digits


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
        self._id = fields.id or "id"
        self._not_of_encoding = f"is not {source.encoding or 'UTF-8'}, or has lone surrogates"
        self._next = 0
        self._rows: Iterator[Row | None] = iter(())

    def rows(self, part: Part) -> Iterator[Row | None]:
        """Yield one item for each row number of the part; None where there is no document.

        Raises:
            InputError: The source has changed, or become unreadable.
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
            raise InputError(f"{self._source.name} cannot be read: {error}") from error
        self._next = part.first + read
        if self._next <= part.last:
            raise self._changed()

    def check_unchanged(self) -> None:
        """Make sure that what was read so far is what was scanned.

        Raises:
            InputError: It may not be.
        """
        try:
            is_same = self._source.state in (None, state_of(self._source.path))
        except OSError:
            is_same = False
        if not is_same:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self._source.name} was changed while it was read: put it back as it was, or give a new folder"
        )

    def _rows_from(self, part: Part) -> Iterator[Row | None]:
        if self._source.format == "parquet":
            yield from map(self._parquet_row, self._parquet_values(part.first))
            return
        columns: list[str] = []
        if has_header(self._source.format):
            with open_source(self._source) as file:
                columns = read_header(records(self._source.format, Lines(file)))
        with open_source(self._source, part.offset) as file:
            for number, record in enumerate(records(self._source.format, Lines(file)), part.first):
                yield self._row(number, record, columns)

    def _parquet_values(self, first: int) -> Iterator[Value]:
        with open_parquet(self._source) as file:
            schema = file.schema_arrow
        text = find_column(self._source, schema, self._fields.text)
        if text is None:
            raise self._changed()
        yield from read_values(self._source, text, find_column(self._source, schema, self._id), first)

    def _parquet_row(self, value: Value) -> Row:
        if value.problem is not None:
            return self._without_text(value.number, value.problem)
        return self._document(value.number, value.id, value.text)

    def _row(self, number: int, record: Record, columns: list[str]) -> Row | None:
        if isinstance(record, csv.Error):
            return self._without_text(number, f"is not CSV: {record}")
        if isinstance(record, list):
            return self._csv_row(number, record, columns) if record else None
        if not record.strip():
            return None
        if self._source.format == "jsonl":
            return self._json_row(number, record)
        return self._document(number, None, record.strip(b"\r\n").decode(errors="surrogateescape"))

    def _csv_row(self, number: int, record: list[str], columns: list[str]) -> Row:
        if len(record) != len(columns):
            return self._without_text(number, f"has {len(record)} fields, and the header {len(columns)}")
        id = record[columns.index(self._id)] if self._id in columns else None
        return self._document(number, id or None, record[columns.index(self._fields.text)])

    def _json_row(self, number: int, line: bytes) -> Row:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            is_text = _is_utf8(line.decode(errors="surrogateescape"))
            return self._without_text(number, f"is not JSON: {error}" if is_text else self._not_of_encoding)
        if not isinstance(record, dict):
            return self._without_text(number, f"is not a JSON object but {type(record).__name__}")
        try:
            id = reach(record, self._id)
        except KeyError:
            id = None
        try:
            text = reach(record, self._fields.text)
        except KeyError:
            return self._without_text(number, f"has no field {self._fields.text!r}", id)
        return self._document(number, id, text)

    def _document(self, number: int, id: object, text: object) -> Row:
        if not isinstance(id, str | int | float | None):
            return self._without_text(number, f"has an id that is no string or number but {_kind(id)}")
        if isinstance(id, float) and not abs(id) < _EXACT_FLOAT:
            return self._without_text(number, "has an id that is no exact number: write it as a string")
        if isinstance(id, str) and not _is_utf8(id):
            return self._without_text(number, "has an id that is not UTF-8")
        if isinstance(text, str) and not _is_utf8(text):
            return self._without_text(number, self._not_of_encoding, id)
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
