"""Files into records, one at a time, knowing at which byte the next one starts."""

import csv
import gzip
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from qwen3_vllm.bulk.sources import Format, Source

# bytes: a line or a paragraph. A list: the fields of CSV; empty for a blank line.
Record = bytes | list[str] | csv.Error


class Lines:
    """Lines of a file; `offset` is where the next one starts."""

    def __init__(self, file: BinaryIO, seen: Callable[[bytes], None] | None = None) -> None:
        """`seen` is called with each line."""
        self.offset = file.tell()
        self._file = file
        self._seen = seen

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            self.offset += len(line)
            if self._seen is not None:
                self._seen(line)
            yield line


def open_source(source: Source) -> BinaryIO:
    return cast(BinaryIO, gzip.open(source.path, "rb")) if source.gzipped else source.path.open("rb")


def has_header(format: Format) -> bool:
    return format in ("csv", "tsv")


def read_header(records: Iterator[Record]) -> list[str]:
    """Column names, from the first record; `[]` if it is none."""
    record = next(records, None)
    if not isinstance(record, list):
        return []
    return [name.removeprefix("\ufeff").strip() for name in record]


def records(format: Format, lines: Lines) -> Iterator[Record]:
    """Cut lines into records; CSV's header is one of them."""
    if format == "csv":
        return _csv(lines, ",")
    if format == "tsv":
        return _csv(lines, "\t")
    return _paragraphs(lines) if format == "paragraphs" else iter(lines)


def _paragraphs(lines: Lines) -> Iterator[bytes]:
    """Blocks of lines between blank ones."""
    block: list[bytes] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield b"".join(block)
            block = []
    if block:
        yield b"".join(block)


def _csv(lines: Lines, delimiter: str) -> Iterator[Record]:
    # The default of 131,072 characters, which only this process-wide switch can raise, is less than a book.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    # What is not UTF-8 becomes surrogates, which the row's reader finds.
    reader = csv.reader((line.decode(errors="surrogateescape") for line in lines), delimiter=delimiter)
    while True:
        try:
            yield next(reader)
        except csv.Error as error:
            yield error
        except StopIteration:
            return
