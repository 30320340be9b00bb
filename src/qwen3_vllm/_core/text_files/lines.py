"""Lines of a file, one at a time, knowing at which byte the next one starts."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from qwen3_vllm.errors import InputError

LONGEST = 1 << 26  # bytes of a line or paragraph: a file without any must not end up in memory


class LongLineError(InputError):
    """A line or a paragraph that cannot be one text."""


class Lines:
    """Lines of a file; `offset` is where the next one starts, `number` counts those that came."""

    def __init__(self, file: BinaryIO, seen: Callable[[bytes], None] | None = None) -> None:
        """`seen` is called with each line, once."""
        self.offset = self.number = 0
        self._file = file
        self._seen = seen
        self._returned: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._returned:
            line = self._returned.pop()
        else:
            line = self._file.readline(LONGEST)
            if not line:
                raise StopIteration
            if len(line) == LONGEST:
                raise LongLineError(f"a line is longer than {LONGEST >> 20} MiB")
            if self._seen is not None:
                self._seen(line)
        self.offset += len(line)
        self.number += 1
        return line

    def give_back(self, lines: list[bytes]) -> None:
        """Let the last lines come once more."""
        self.offset -= sum(map(len, lines))
        self.number -= len(lines)
        self._returned += reversed(lines)
