"""Lines into records, one at a time: paragraphs, rows of CSV, or the lines themselves."""

import csv
from collections.abc import Iterator

from qwen3_vllm._core.text_files.csv_records import csv_records
from qwen3_vllm._core.text_files.lines import LONGEST, Lines, LongLineError
from qwen3_vllm._core.text_files.sources import Format

# bytes: a line or a paragraph. A list: the fields of CSV; empty for a blank line.
Record = bytes | list[str] | csv.Error


def has_header(format: Format) -> bool:
    return format in ("csv", "tsv")


def read_header(records: Iterator[Record]) -> list[str]:
    """Column names, from the first record that is not blank; `[]` if all are blank.

    Raises:
        csv.Error: It is not CSV.
    """
    for record in records:
        if isinstance(record, csv.Error):
            raise record
        if isinstance(record, list) and any(map(str.strip, record)):
            return [name.strip() for name in record]
    return []


def records(format: Format, lines: Lines) -> Iterator[Record]:
    """Cut lines into records; CSV's header is one of them."""
    if format == "csv":
        return csv_records(lines, ",")
    if format == "tsv":
        return csv_records(lines, "\t")
    return _paragraphs(lines) if format == "paragraphs" else iter(lines)


def _paragraphs(lines: Lines) -> Iterator[bytes]:
    """Blocks of lines between blank ones."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        if line.strip():
            block.append(line)
            size += len(line)
            if size > LONGEST:
                raise LongLineError(f"a paragraph is longer than {LONGEST >> 20} MiB")
        elif block:
            yield b"".join(block)
            block = []
            size = 0
    if block:
        yield b"".join(block)
