"""Stop a server when the process that started it is gone, even by kill -9, and keep its log within bounds.

`python watchdog.py GROUP PIPE LOG`: the process group of the server, the descriptor on which its output
arrives, and the file for it. Standard input is a pipe whose other end only the starter holds: it closes when
the starter ends. A byte on it says that the server is stopped already. A byte on standard output says that
the output has ended and is in the file. Run by path and with `python -I`, so that it costs milliseconds.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

SECONDS_TO_END = 20.0
SECONDS_TO_DRAIN = 2.0
# The boot stands in the head, the last hours in the tail.
LOG_BYTES, HEAD_BYTES, TAIL_BYTES = 16 * 2**20, 2**20, 4 * 2**20
LINE_BYTES = 8192  # vLLM's own longest line is about half of it; a stranger's path may have 60 KB
# vLLM writes it at every call of /v1/score, the one scoring route that every release guards by its own key.
_AT_EVERY_CALL = b"To indicate that Score API is not part of standard OpenAI API"


class Log:
    """A file that keeps the head and the tail of what is written to it, in lines that are not too long.

    What cannot be written, because the disk is full, is dropped: the server must go on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._dropped = 0
        self._column = 0
        self._is_noted = False

    def write(self, output: bytes) -> None:
        """Add some output, as it comes."""
        kept = b"".join(map(self._fit, output.splitlines(keepends=True)))
        with contextlib.suppress(OSError):
            if self._size + len(kept) > LOG_BYTES:
                self._shorten()
            self._size += self._file.write(kept)

    def _fit(self, piece: bytes) -> bytes:
        """Return what of a line, or of a part of one, goes into the file."""
        text = piece.rstrip(b"\r\n")
        if _AT_EVERY_CALL in text:
            if self._is_noted:
                return b""
            self._is_noted = True
        room = max(0, LINE_BYTES - self._column)
        self._column += len(text)
        fits = text if len(text) <= room else text[:room] + (b"... (cut)" if room else b"")
        if len(text) < len(piece):
            self._column = 0
        return fits + piece[len(text) :]

    def _shorten(self) -> None:
        with self._path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(-TAIL_BYTES, os.SEEK_END)
            tail = file.read()
        head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
        self._dropped += self._size - len(head) - len(tail)
        shorter = b"%s... (%d bytes dropped: the log keeps its head and its tail)\n%s" % (
            head,
            self._dropped,
            tail,
        )
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_bytes(shorter)
        fresh.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)
        self._size = len(shorter)


def keep_log(pipe: int, path: Path) -> None:
    """Write a server's output to its log until all who write have ended."""
    log = Log(path)
    while output := os.read(pipe, 2**16):
        log.write(output)
    with contextlib.suppress(OSError):
        os.write(1, b".")


def stop_group(group: int) -> None:
    """Ask a process group to end, and make it end."""
    try:
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.2)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def main(group: int, pipe: int, path: Path) -> None:
    """Watch until the starter says that the server is stopped, or is gone."""
    # What ends a service signals all of its processes: the server's last lines still have to be read.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keeping = threading.Thread(target=keep_log, args=(pipe, path), daemon=True)
    keeping.start()
    if not sys.stdin.buffer.read(1):
        stop_group(group)
    keeping.join(SECONDS_TO_DRAIN)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
