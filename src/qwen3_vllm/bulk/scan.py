"""One pass over an input: how many rows, where each part of it starts, and its fingerprint.

A row is a line of JSONL or text (blank ones count, but hold no document), a record of CSV after the header,
a paragraph, or a row of Parquet. Rows count from 1.
"""

import csv
import hashlib
import zlib
from dataclasses import dataclass

import pyarrow as pa

from qwen3_vllm._core.text_files.lines import Lines, LongLineError
from qwen3_vllm._core.text_files.records import has_header, read_header, records
from qwen3_vllm._core.text_files.sources import Source, state_of
from qwen3_vllm._core.text_files.utf8 import open_source
from qwen3_vllm.bulk.input_checks import Decoded, FieldsOfJson, check_columns, check_head, no_column
from qwen3_vllm.bulk.parquet import find_column, is_id, is_text, open_parquet
from qwen3_vllm.bulk.parts import Fields, Part
from qwen3_vllm.errors import ConfigurationError

# What reading a broken file, or one that is something else, raises.
UNREADABLE = (OSError, EOFError, zlib.error, UnicodeError, csv.Error, LongLineError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a source found."""

    rows: int
    sha256: str
    parts: list[Part]
    state: tuple[int, ...]


def scan(index: int, source: Source, part_rows: int, fields: Fields) -> Scan:
    """Count a source, take its fingerprint, and cut it into parts of `part_rows` rows.

    Raises:
        ConfigurationError: It cannot be read, lacks a column, or is in another encoding.
    """
    try:
        state = state_of(source.path)
        if source.format == "parquet":
            rows, sha256 = _scan_parquet(source, fields)
            offsets = [0] * len(range(0, rows, part_rows))
        else:
            rows, sha256, offsets = _scan_lines(source, part_rows, fields)
        is_same = state == state_of(source.path)
    except UNREADABLE as error:
        raise ConfigurationError(f"{source.name} cannot be read: {error}") from error
    if not is_same:
        raise ConfigurationError(f"{source.name} is being written to: run this again when that has ended")
    parts = [
        Part(index, 1 + number * part_rows, min(rows, (number + 1) * part_rows), offset)
        for number, offset in enumerate(offsets)
    ]
    return Scan(rows, sha256, parts, state)


def _scan_parquet(source: Source, fields: Fields) -> tuple[int, str]:
    with open_parquet(source) as file:
        schema = file.schema_arrow
        for option, name in [("text", fields.text), ("id", fields.id or "id")]:
            column = find_column(source, schema, name)
            if column is None and (option, name) in fields.wanted:
                raise no_column(source, schema.names, option, name)
            if column is not None and not (is_text if option == "text" else is_id)(column.type):
                raise ConfigurationError(
                    f"{source.name}: column {name!r} holds {column.type}, not {option}s: "
                    f"give --{option}-field NAME"
                )
        rows: int = file.metadata.num_rows
    with source.path.open("rb") as raw:
        return rows, hashlib.file_digest(raw, "sha256").hexdigest()


def _scan_lines(source: Source, part_rows: int, fields: Fields) -> tuple[int, str, list[int]]:
    digest = hashlib.sha256()
    looked_for = FieldsOfJson(source, fields) if source.format == "jsonl" else None
    decoded = Decoded(source)
    offsets: list[int] = []
    rows = 0

    def look_at(line: bytes) -> None:
        digest.update(line)
        decoded.look_at(line)

    check_head(source)
    with open_source(source) as file:
        lines = Lines(file, seen=look_at)
        found = records(source.format, lines)
        if has_header(source.format):
            check_columns(source, read_header(found), fields)
        position = lines.offset
        for record in found:
            if rows % part_rows == 0:
                offsets.append(position)
            rows += 1
            position = lines.offset
            if looked_for is not None and looked_for.missing:
                looked_for.look_at(record)
    decoded.check()
    if looked_for is not None:
        looked_for.check()
    return rows, digest.hexdigest(), offsets
