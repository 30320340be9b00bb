"""Files into records, one at a time, knowing at which byte the next one starts."""

import codecs
import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from qwen3_vllm._core.text_files.sources import Format, Source
from qwen3_vllm.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# bytes: a line or a paragraph. A list: the fields of CSV; empty for a blank line.
Record = bytes | list[str] | csv.Error
_RECORD_BYTES = 1 << 25  # of CSV over several lines; a text of any model's context is far shorter
_LONGEST = 1 << 26  # bytes of a line or paragraph: a file without any must not end up in memory
_BLOCK = 1 << 16
_MARKING = "qwen3_vllm.mark"


class TooLongError(InputError):
    """A line or a paragraph that cannot be one text."""


class Lines:
    """Lines of a file; `offset` is where the next one starts."""

    def __init__(self, file: BinaryIO, offset: int = 0, seen: Callable[[bytes], None] | None = None) -> None:
        """`offset` is where the file is; `seen` is called with each line, once."""
        self.offset = offset
        self._file = file
        self._seen = seen
        self._returned: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._returned:
            line = self._returned.pop()
        else:
            line = self._file.readline(_LONGEST)
            if not line:
                raise StopIteration
            if len(line) == _LONGEST:
                raise TooLongError(f"a line is longer than {_LONGEST >> 20} MiB")
            if self._seen is not None:
                self._seen(line)
        self.offset += len(line)
        return line

    def give_back(self, lines: list[bytes]) -> None:
        """Let the last lines come once more."""
        self.offset -= sum(map(len, lines))
        self._returned += reversed(lines)


def open_raw(source: Source) -> BinaryIO:
    return cast(BinaryIO, gzip.open(source.path, "rb")) if source.gzipped else source.path.open("rb")


def open_source(source: Source, offset: int = 0) -> BinaryIO:
    """Open a source of lines as UTF-8 without a byte order mark, `offset` bytes after its start."""
    return as_utf8(open_raw(source), source.encoding, offset)


def as_utf8(file: BinaryIO, encoding: str | None, offset: int = 0) -> BinaryIO:
    """Read a seekable file as UTF-8 without a byte order mark, `offset` bytes after its start."""
    if encoding is None:
        start = 0  # past the mark, and past one more that a second program put before it
        while file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            start += len(codecs.BOM_UTF8)
        file.seek(start + offset)
        return file
    recoded = io.BufferedReader(_AsUtf8(file, encoding), _BLOCK)
    while offset:
        offset -= len(recoded.read(min(offset, _BLOCK))) or offset
    return recoded


class _AsUtf8(io.RawIOBase):
    """A file in UTF-8, without a byte order mark; bytes that its encoding lacks become lone surrogates."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_MARKING)
        self._ready = b""
        self._at_start = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._ready:
            block = self._file.read(_BLOCK)
            text = self._decoder.decode(block, not block)
            if text and self._at_start:
                text = text.lstrip("\ufeff")
                self._at_start = not text
            self._ready = text.encode("utf-8", "surrogatepass")
            if not block:
                break
        view = memoryview(buffer)
        count = min(len(view), len(self._ready))
        view[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 | byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARKING, _mark)


def has_header(format: Format) -> bool:
    return format in ("csv", "tsv")


def read_header(records: Iterator[Record]) -> list[str]:
    """Column names, from the first record that is not blank; `[]` if there is none.

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
        return _csv(lines, ",")
    if format == "tsv":
        return _csv(lines, "\t")
    return _paragraphs(lines) if format == "paragraphs" else iter(lines)


def _paragraphs(lines: Lines) -> Iterator[bytes]:
    """Blocks of lines between blank ones."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        if line.strip():
            block.append(line)
            size += len(line)
            if size > _LONGEST:
                raise TooLongError(f"a paragraph is longer than {_LONGEST >> 20} MiB")
        elif block:
            yield b"".join(block)
            block = []
            size = 0
    if block:
        yield b"".join(block)


def _csv(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Records of CSV. After one that is wrong, it goes on with the line after that record's first.

    A quote that is never closed, or is closed by the opening one of a later field, would else take other
    records with it.
    """
    # The default of 131,072 characters, which only this process-wide switch can raise, is less than a book.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    record = _RecordLines(lines)
    reader = csv.reader(record, delimiter=delimiter, strict=True)
    while True:
        record.start()
        found: Record
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
