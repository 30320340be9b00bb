"""The program around the commands: its streams take any text, and its exit status says if they took it."""

import codecs
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import typer
from typer.core import TyperGroup

from qwen3_vllm.cli._terminal import EXIT_FAILED, EXIT_NO_READER, err, printable

_ESCAPING = "qwen3_vllm.escape"
_UsageError: type[Exception] = typer.BadParameter.mro()[1]  # typer brings click's classes, and names but this


class Program(TyperGroup):
    """The commands, on streams that take any text; the exit status says if they took it."""

    def main(self, *args: Any, **options: Any) -> Any:
        with _safe_streams():
            return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _printable_usage_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_usage_errors() -> Iterator[None]:
    """They quote arguments, and a shell makes arguments of files' names."""
    try:
        yield
    except _UsageError as error:
        error.message = printable(error.message)  # type: ignore[attr-defined]
        raise


class _OutputFailed(Exception):
    """Standard output failed. Not an OSError, which the commands take for one of their files or servers."""


class _Stream:
    """A text stream whose failures are not taken for a command's. Those of standard error are ignored."""

    def __init__(self, stream: TextIO, *, is_output: bool) -> None:
        self._stream = stream
        self._is_output = is_output

    def write(self, text: str) -> int:
        with self._failing():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._failing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._abandon()
            if self._is_output:
                raise _OutputFailed from error

    def _abandon(self) -> None:
        """Send what is left to nowhere: the interpreter would try once more at its end, and complain."""
        with suppress(OSError):  # what has no file descriptor needs none
            descriptor = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


class _LastResort(logging.Handler):
    """Shows warnings that no other handler takes, as logging's own does, but cleaned."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record))


@contextmanager
def _safe_streams() -> Iterator[None]:
    """Let standard output and error take any text, and report when they do not."""
    before = sys.stdout, sys.stderr, logging.lastResort
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # for streams that are closed
        for name, is_output in (("stdout", True), ("stderr", False)):
            stream = getattr(sys, name) or nowhere
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=_ESCAPING)
            setattr(sys, name, cast(TextIO, _Stream(stream, is_output=is_output)))
        logging.lastResort = _LastResort(logging.WARNING)
        try:
            try:
                yield
            finally:
                sys.stdout.flush()
        except _OutputFailed as failed:
            reason = cast(OSError, failed.__cause__)
            if reason.errno == errno.EPIPE:
                raise SystemExit(EXIT_NO_READER) from None
            err.print(f"error: cannot write to standard output: {reason.strerror}", style="red")
            raise SystemExit(EXIT_FAILED) from None
        finally:
            sys.stdout, sys.stderr, logging.lastResort = before


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as JSON does: JSON stays JSON, and elsewhere a reader sees what it was."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    codes = [units[place : place + 2].hex() for place in range(0, len(units), 2)]
    return "".join(f"\\u{code}" for code in codes), error.end


codecs.register_error(_ESCAPING, _escape)
