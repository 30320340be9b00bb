"""One pass over an input: how many rows, where each part of it starts, and its fingerprint.

A row is a line of JSONL or text (blank ones count, but hold no document), a record of CSV after the header,
a paragraph, or a row of Parquet. Rows count from 1.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qwen3_vllm.bulk.records import Lines, has_header, open_source, read_header, records
from qwen3_vllm.bulk.sources import Source
from qwen3_vllm.errors import ConfigurationError

# What reading a broken file, or one that is something else, raises.
UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowInvalid)


class Part(NamedTuple):
    """Rows `first` to `last` of a source, and the byte at which they start (not used for Parquet)."""

    source: int
    first: int
    last: int
    offset: int

    @property
    def name(self) -> str:
        return f"{self.source:05d}-{self.first:012d}"


class Span(NamedTuple):
    """Rows `first` to `last` of a part: what one chunk covers."""

    part: Part
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.part.name}-{self.first:012d}-{self.last:012d}"


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of columns. `id=None`: "id" if there is one."""

    text: str = "text"
    id: str | None = None

    def id_among(self, columns: list[str]) -> str | None:
        name = self.id or "id"
        return name if name in columns else None


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a source told."""

    rows: int
    sha256: str
    parts: list[Part]


def scan(index: int, source: Source, part_rows: int, fields: Fields) -> Scan:
    """Count a source, take its fingerprint, and cut it into parts of `part_rows` rows.

    Raises:
        ConfigurationError: It cannot be read, or lacks a column.
    """
    try:
        if source.format == "parquet":
            rows, sha256 = _scan_parquet(source, fields)
            offsets = [0] * len(range(0, rows, part_rows))
        else:
            rows, sha256, offsets = _scan_lines(source, part_rows, fields)
    except UNREADABLE as error:
        raise ConfigurationError(f"{source.name} cannot be read: {error}") from error
    parts = [
        Part(index, 1 + number * part_rows, min(rows, (number + 1) * part_rows), offset)
        for number, offset in enumerate(offsets)
    ]
    return Scan(rows, sha256, parts)


def _scan_parquet(source: Source, fields: Fields) -> tuple[int, str]:
    with pq.ParquetFile(source.path) as file:
        _check_columns(source, file.schema_arrow.names, fields)
        rows: int = file.metadata.num_rows
    with source.path.open("rb") as raw:
        return rows, hashlib.file_digest(raw, "sha256").hexdigest()


def _scan_lines(source: Source, part_rows: int, fields: Fields) -> tuple[int, str, list[int]]:
    digest = hashlib.sha256()
    offsets: list[int] = []
    rows = 0
    with open_source(source) as file:
        lines = Lines(file, seen=digest.update)
        found = records(source.format, lines)
        if has_header(source.format):
            _check_columns(source, read_header(found), fields)
        position = lines.offset
        for _ in found:
            if rows % part_rows == 0:
                offsets.append(position)
            rows += 1
            position = lines.offset
    return rows, digest.hexdigest(), offsets


def _check_columns(source: Source, columns: list[str], fields: Fields) -> None:
    for role, name in (("text", fields.text), ("id", fields.id)):
        if name is not None and name not in columns:
            raise ConfigurationError(
                f"{source.name} has no column {name!r}, but has {', '.join(columns) or 'none at all'}: "
                f"say --{role}-field NAME"
            )
