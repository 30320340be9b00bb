"""One pass over an input: how many rows, where each part of it starts, and its fingerprint.

A row is a line of JSONL or text (blank ones count, but hold no document), a record of CSV after the header,
a paragraph, or a row of Parquet. Rows count from 1.
"""

import codecs
import csv
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
import pyarrow as pa

from qwen3_vllm._core.fields import reach
from qwen3_vllm._core.text_files.lines import Lines, TooLongError
from qwen3_vllm._core.text_files.records import has_header, read_header, records
from qwen3_vllm._core.text_files.sources import Source, state_of
from qwen3_vllm._core.text_files.utf8 import open_raw, open_source
from qwen3_vllm.bulk.parquet import find_column, is_id, is_text, open_parquet
from qwen3_vllm.errors import ConfigurationError

# What reading a broken file, or one that is something else, raises.
UNREADABLE = (OSError, EOFError, zlib.error, UnicodeError, csv.Error, TooLongError, pa.ArrowException)

_FEW_WRONG = 10  # lines, which may be wrong on their own whatever the others are
_HEAD_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", ""),
    (codecs.BOM_UTF32_LE, "utf-32", "-le"),
    (codecs.BOM_UTF32_BE, "utf-32", "-be"),
    (codecs.BOM_UTF16_LE, "utf-16", "-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "-be"),
)
_GZIP = b"\x1f\x8b"


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

    @property
    def wanted(self) -> list[tuple[str, str]]:
        """The columns that must be there, by the options that name them."""
        return [("text", self.text), *([("id", self.id)] if self.id is not None else [])]


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a source told."""

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
                raise _no_column(source, schema.names, option, name)
            if column is not None and not (is_text if option == "text" else is_id)(column.type):
                raise ConfigurationError(
                    f"{source.name}: column {name!r} holds {column.type}, which is no {option}: "
                    f"say --{option}-field NAME"
                )
        rows: int = file.metadata.num_rows
    with source.path.open("rb") as raw:
        return rows, hashlib.file_digest(raw, "sha256").hexdigest()


def _scan_lines(source: Source, part_rows: int, fields: Fields) -> tuple[int, str, list[int]]:
    digest = hashlib.sha256()
    looked_for = _FieldsOfJson(source, fields) if source.format == "jsonl" else None
    decoded = _Decoded(source)
    offsets: list[int] = []
    rows = 0

    def look_at(line: bytes) -> None:
        digest.update(line)
        decoded.look_at(line)

    _check_head(source)
    with open_source(source) as file:
        lines = Lines(file, seen=look_at)
        found = records(source.format, lines)
        if has_header(source.format):
            _check_columns(source, read_header(found), fields)
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


class _Decoded:
    """Counts lines, but for blank ones, that are not of the encoding that they should be of."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = self._beyond_ascii = self._wrong = 0

    def look_at(self, line: bytes) -> None:
        self._lines += not line.isspace()
        if not line.isascii():
            self._beyond_ascii += 1
            try:
                line.decode()
            except UnicodeDecodeError:
                self._wrong += 1

    def check(self) -> None:
        """Raise ConfigurationError if it is not about single rows."""
        wrong = self._wrong
        if wrong * 2 > self._lines or (wrong > _FEW_WRONG and wrong * 2 > self._beyond_ascii):
            raise ConfigurationError(
                f"{self._source.name} is not {self._source.encoding or 'UTF-8'}: {wrong:,} of its "
                f"{self._lines:,} lines cannot be read so. Say --encoding NAME, such as gb18030 or cp1252"
            )


class _FieldsOfJson:
    """Looks for fields in rows of JSON, until each was in one."""

    def __init__(self, source: Source, fields: Fields) -> None:
        self._source = source
        self.missing = fields.wanted
        self._keys: list[str] | None = None
        self._is_blank = True

    def look_at(self, line: object) -> None:
        if not isinstance(line, bytes) or not line.strip():
            return
        self._is_blank = False
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        if isinstance(record, dict):
            if self._keys is None:
                self._keys = list(record)
            self.missing = [(option, name) for option, name in self.missing if not _has(record, name)]

    def check(self) -> None:
        """Raise ConfigurationError if there are rows, and one of the fields is in none of them."""
        if not self.missing or self._is_blank:
            return
        if self._keys is None:
            raise ConfigurationError(
                f"no line of {self._source.name} is a JSON object: say --format, or mend the file"
            )
        raise _no_column(self._source, self._keys, *self.missing[0])


def _has(record: dict[str, object], name: str) -> bool:
    try:
        reach(record, name)
    except KeyError:
        return False
    return True


def _check_head(source: Source) -> None:
    """Raise ConfigurationError for what reading by lines would take for one line, or for nonsense."""
    with open_raw(source) as file:
        raw = file.read(_HEAD_BYTES)
    if raw.startswith(_GZIP):
        raise ConfigurationError(
            f"{source.name} is compressed with gzip: give a file whose name ends in .gz, or unpack it"
        )
    found = next(((name, order) for mark, name, order in _MARKS if raw.startswith(mark)), None)
    if found is not None and (source.encoding or "utf-8") not in (found[0], "".join(found)):
        raise ConfigurationError(
            f"{source.name} begins with the byte order mark of {found[0]}: say --encoding {found[0]}"
        )
    if source.encoding is None and b"\0" in raw[:4]:
        raise ConfigurationError(
            f"{source.name} begins with a null byte as UTF-16 does: say --encoding utf-16-le or utf-16-be"
        )
    with open_source(source) as file:
        head = file.read(_HEAD_BYTES)
    if b"\r" in head.rstrip(b"\r") and b"\n" not in head and source.format != "paragraphs":
        raise ConfigurationError(
            f"{source.name} has lines that end in a carriage return alone: "
            "replace these, for example with `tr '\\r' '\\n'`"
        )


def _check_columns(source: Source, columns: list[str], fields: Fields) -> None:
    for option, name in fields.wanted:
        if name not in columns:
            raise _no_column(source, columns, option, name)
    for name in (fields.text, fields.id or "id"):
        if columns.count(name) > 1:
            raise ConfigurationError(
                f"{source.name} has {columns.count(name)} columns called {name!r}: rename all but one"
            )


def _no_column(source: Source, columns: Sequence[str], option: str, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source.name} has no column {name!r}, but has {', '.join(columns) or 'none at all'}: "
        f"say --{option}-field NAME"
    )
