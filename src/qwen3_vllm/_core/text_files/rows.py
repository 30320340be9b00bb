"""Records into documents, or into what keeps them from being one."""

import csv
from typing import NamedTuple

import orjson

from qwen3_vllm._core.text_files.fields import reach
from qwen3_vllm._core.text_files.records import Record
from qwen3_vllm._core.text_files.sources import Format
from qwen3_vllm._core.texts import is_utf8

_EXACT_FLOAT = 2.0**53  # from here up, numbers that were integers have lost digits


class Row(NamedTuple):
    """A document, or why there is none. `text` may be anything where `problem` is None."""

    number: int
    id: str
    text: object
    problem: str | None = None


class RowReader:
    """Reads the records of one file; `name` stands in the ids of documents that have none of their own."""

    def __init__(
        self, name: str, format: Format, *, text_field: str, id_field: str | None, encoding: str | None
    ) -> None:
        self._name_of_file = name
        self._format = format
        self._text = text_field
        self._id = id_field or "id"
        self._not_of_encoding = f"is not {encoding or 'UTF-8'}, or has lone surrogates"

    def read(self, number: int, record: Record, columns: list[str]) -> Row | None:
        """Read record `number`; None where there is no document. `columns`: the header of CSV."""
        if isinstance(record, csv.Error):
            return self.without_text(number, f"is not CSV: {record}")
        if isinstance(record, list):
            return self._csv_row(number, record, columns) if record else None
        if not record.strip():
            return None
        if self._format == "jsonl":
            return self._json_row(number, record)
        return self.document(number, None, record.strip(b"\r\n").decode(errors="surrogateescape"))

    def _csv_row(self, number: int, record: list[str], columns: list[str]) -> Row:
        if len(record) != len(columns):
            return self.without_text(number, f"has {len(record)} fields, and the header {len(columns)}")
        id = record[columns.index(self._id)] if self._id in columns else None
        return self.document(number, id or None, record[columns.index(self._text)])

    def _json_row(self, number: int, line: bytes) -> Row:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            is_text = is_utf8(line.decode(errors="surrogateescape"))
            return self.without_text(number, f"is not JSON: {error}" if is_text else self._not_of_encoding)
        if not isinstance(record, dict):
            return self.without_text(number, f"is not a JSON object but {type(record).__name__}")
        try:
            id = reach(record, self._id)
        except KeyError:
            id = None
        try:
            text = reach(record, self._text)
        except KeyError:
            return self.without_text(number, f"has no field {self._text!r}", id)
        return self.document(number, id, text)

    def document(self, number: int, id: object, text: object) -> Row:
        if not isinstance(id, str | int | float | None):
            return self.without_text(
                number, f"has an id that is neither a string nor a number but {_kind(id)}"
            )
        if isinstance(id, float) and not abs(id) < _EXACT_FLOAT:
            return self.without_text(number, "has an id that is not an exact number: write it as a string")
        if isinstance(id, str) and not is_utf8(id):
            return self.without_text(number, "has an id that is not UTF-8")
        if isinstance(text, str) and not is_utf8(text):
            return self.without_text(number, self._not_of_encoding, id)
        return Row(number, self.name_of(number) if id is None else str(id), text)

    def without_text(self, number: int, problem: str, id: object = None) -> Row:
        usable = isinstance(id, str | int) and is_utf8(str(id))
        return Row(number, str(id) if usable else self.name_of(number), None, problem)

    def name_of(self, number: int) -> str:
        """The id of a document that has none of its own."""
        return f"{self._name_of_file}:{number}"


def _kind(value: object) -> str:
    return type(value).__name__
