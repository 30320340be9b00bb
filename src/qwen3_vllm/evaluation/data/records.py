"""Records of JSONL, CSV and TSV files, gzipped or not, with the line of each."""

import csv
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from qwen3_vllm._core.text_files.csv_records import csv_records
from qwen3_vllm._core.text_files.lines import Lines
from qwen3_vllm._core.text_files.records import read_header
from qwen3_vllm._core.text_files.sources import Source, ending_of, format_of
from qwen3_vllm._core.text_files.utf8 import open_source
from qwen3_vllm._core.texts import is_utf8
from qwen3_vllm.errors import InputError

_SUFFIXES = (".jsonl", ".ndjson", ".tsv", ".csv")
Record = dict[str, object]


def find(folder: Path, stem: str) -> Path | None:
    """Find the file of a folder called `stem` that has a known ending; None if it has no such file."""
    paths = (folder / f"{stem}{suffix}{packed}" for suffix in _SUFFIXES for packed in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def read_records(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the place of each record (`FILE, line N`) and its fields by name.

    Raises:
        InputError: The file cannot be read, or a line is not a record; says which.
    """
    ending = ending_of(path)
    if ending not in _SUFFIXES:
        raise InputError(
            f"{path}: cannot tell the format from {ending or 'no ending'}; use .jsonl, .csv or .tsv"
        )
    with lines_of(path) as lines:
        if format_of(path)[0] == "jsonl":
            yield from _json_lines(path, lines)
        else:
            yield from _rows(path, lines, _delimiter(ending, lines))


@contextmanager
def lines_of(path: Path) -> Iterator[Lines]:
    """Open a file of UTF-8, with or without a byte order mark, unpacked if it ends in .gz.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with open_source(Source(str(path), path, "text", gzipped=format_of(path)[1])) as file:
            yield Lines(file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason}") from error


def text_of(record: Record, field: str, where: str) -> str:
    """Return a field that must be text.

    Raises:
        InputError: It is missing, not a string, or holds lone surrogates, which cannot be sent.
    """
    value = record.get(field)
    if not isinstance(value, str):
        raise InputError(f"{where}: has no text in {field!r}; its fields are {', '.join(record) or 'none'}")
    if not is_utf8(value):
        raise InputError(f"{where}: {field!r} holds lone surrogates, which UTF-8 cannot hold")
    return value


def id_of(record: Record, fields: Sequence[str], where: str) -> str:
    """Return the first of several fields that is there, as an id.

    Raises:
        InputError: None is there, or it is neither a string nor an integer.
    """
    value = next((record[name] for name in fields if record.get(name) not in (None, "")), None)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: has no id; looked for {' and '.join(map(repr, fields))}")
    return str(value)


def _json_lines(path: Path, lines: Lines) -> Iterator[tuple[str, Record]]:
    for line in lines:
        if not line.strip():
            continue
        where = f"{path}, line {lines.number}"
        try:
            record = orjson.loads(line.decode())
        except orjson.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: not a JSON object")
        yield where, record


def _delimiter(ending: str, lines: Lines) -> str:
    """Choose it by the ending or the header: Excel writes semicolons where the comma is a decimal sign."""
    if ending == ".tsv":
        return "\t"
    header = next(lines, b"")
    lines.give_back([header] if header else [])
    return ";" if header.count(b";") > header.count(b",") else ","


def _rows(path: Path, lines: Lines, delimiter: str) -> Iterator[tuple[str, Record]]:
    found = csv_records(lines, delimiter)
    try:
        names = read_header(found)
    except csv.Error as error:
        raise InputError(f"{path}, line 1: {error}") from error
    first = lines.number + 1
    for row in found:
        where, first = f"{path}, line {first}", lines.number + 1
        if isinstance(row, csv.Error):
            raise InputError(f"{where}: {row}")
        if not row:
            continue
        if not is_utf8("".join(row)):
            raise InputError(f"{where}: is not UTF-8")
        if len(row) != len(names):
            raise InputError(f"{where}: has {len(row)} fields, and the header {len(names)}")
        yield where, dict(zip(names, row, strict=True))
