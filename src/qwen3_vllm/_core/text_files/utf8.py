"""A file opened as UTF-8, whatever its encoding, and unpacked."""

import codecs
import gzip
import io
from typing import TYPE_CHECKING, BinaryIO, cast

from qwen3_vllm._core.text_files.sources import Source

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 16
_MARKING = "qwen3_vllm.mark"


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
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 | byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_MARKING, _mark)
