"""Records of CSV, so that one that is wrong takes no other with it."""

import csv
import sys
from collections.abc import Iterator

from qwen3_vllm._core.text_files.lines import Lines

_RECORD_BYTES = 1 << 25  # of CSV over several lines; a text of any model's context is far shorter


def csv_records(lines: Lines, delimiter: str) -> Iterator[list[str] | csv.Error]:
    """Records of CSV. After one that is wrong, reading resumes with the line after that record's first.

    A quote that is never closed, or is closed by the opening one of a later field, would else take other
    records with it.
    """
    # The default of 131,072 characters, which only this process-wide switch can raise, is less than a book.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    record = _RecordLines(lines)
    reader = csv.reader(record, delimiter=delimiter, strict=True)
    while True:
        record.start()
        found: list[str] | csv.Error
        try:
            found = next(reader)
        except csv.Error as error:
            found = error
            if len(record.taken) > 1 or record.at_end:
                lines.give_back(record.taken[1:])
                start = record.taken[0][:60].decode(errors="replace").rstrip()
                found = csv.Error(f"a quote that is opened in it is not closed: {start}")
        except StopIteration:
            return
        yield found


class _RecordLines:
    """The lines that a reader of CSV takes for one record, as text."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.start()

    def start(self) -> None:
        self.taken: list[bytes] = []
        self.at_end = False
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self.at_end = True
            raise StopIteration
        self.taken.append(line)
        self._size += len(line)
        if self._size > _RECORD_BYTES and len(self.taken) > 1:
            raise csv.Error("too long")
        # What is not UTF-8 becomes surrogates, which the row's reader finds.
        return line.decode(errors="surrogateescape")
