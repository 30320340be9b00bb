"""Records of JSONL, CSV and TSV files, gzipped or not, with the line of each."""

import csv
import gzip
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, cast

import orjson

from qwen3_vllm.errors import InputError

SUFFIXES = (".jsonl", ".ndjson", ".tsv", ".csv")
Record = dict[str, object]


def find(folder: Path, stem: str) -> Path | None:
    """Find the file of a folder that is called `stem` and has a known ending; None if there is none."""
    paths = (folder / f"{stem}{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def read_records(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the place of each record (`FILE, line N`) and its fields by name.

    Raises:
        InputError: The file cannot be read, or a line is not a record; says which.
    """
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: cannot tell the format from {suffix or 'no ending'}; use .jsonl, .csv or .tsv"
        )
    try:
        with open_text(path) as file:
            yield from (
                _json_lines(path, file) if suffix in (".jsonl", ".ndjson") else _rows(path, file, suffix)
            )
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason}") from error


def open_text(path: Path) -> IO[str]:
    """Open a file as UTF-8 text, with or without a byte order mark, unpacked if it ends in .gz."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    return cast(IO[str], opened(path, "rt", encoding="utf-8-sig", newline=""))


def suffix_of(path: Path) -> str:
    """Ending of a path in lower case, without a .gz behind it."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def text_of(record: Record, field: str, where: str) -> str:
    """Return a field that must be text.

    Raises:
        InputError: It is missing, not a string, or holds lone surrogates, which cannot be sent.
    """
    value = record.get(field)
    if not isinstance(value, str):
        raise InputError(f"{where}: has no text in {field!r}; its fields are {', '.join(record) or 'none'}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
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


def _json_lines(path: Path, file: IO[str]) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: not a JSON object")
        yield where, record


def _rows(path: Path, file: IO[str], suffix: str) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default is less than a book
    header = file.readline()
    # Excel writes semicolons where the comma is a decimal sign.
    delimiter = "\t" if suffix == ".tsv" else ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(chain([header], file), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        for row in reader:
            if not row:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(names):
                raise InputError(f"{where}: has {len(row)} fields, and the header {len(names)}")
            yield where, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error
