"""Run servers in the foreground: progress, their logs, signals, and a clean end."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.status import Status

from qwen3_vllm.cli._terminal import err, print_line
from qwen3_vllm.serving.launch import running
from qwen3_vllm.serving.process.server import Progress, Server

_LINE_EVERY_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.5
# SIGHUP is not there on Windows, where the rest of the command line must still work.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _StopAsked(BaseException):
    """A signal asked the servers to stop; no error, and not to be caught as one."""


@contextmanager
def until_a_signal() -> Iterator[Callable[[], None]]:
    """Yield what is to be called now and then: it ends the block once a signal has asked for that."""
    try:
        with _signals() as check_signals:
            yield check_signals
    except _StopAsked:
        err.print("stopped")


def supervise(
    servers: Sequence[Server], check_signals: Callable[[], None], *, boot_timeout: float, show_log: bool
) -> None:
    """Run the servers until a signal comes, or one dies; inside `until_a_signal`.

    Raises:
        ServerDied: One died; all are stopped by then.
    """
    logs = [_Log(server.name, server.log_path) for server in servers] if show_log else []
    with _progress(logs) as show:

        def on_progress(progress: Progress) -> None:
            check_signals()
            show(progress)

        with running(servers, timeout=boot_timeout, on_progress=on_progress):
            show(None)
            for server in servers:
                err.print(f"{server.name}: ready at {server.base_url}/v1, log {server.log_path}")
            err.print("Ctrl-C stops")
            while True:
                check_signals()
                _look_at(servers, logs)
                time.sleep(_LOOK_EVERY_SECONDS)


def _look_at(servers: Sequence[Server], logs: "Sequence[_Log]") -> None:
    for log in logs:
        log.print_new()
    for server in servers:
        if server.exit_status is not None:
            raise server.death()


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """Yield what raises `_StopAsked` once there was one of the signals that end a program.

    The signal itself raises nothing: it may come where a lock was just taken, which nobody would release.

    A SIGHUP ignored from the start stays so: that is what nohup is for. A SIGINT does not: shells ignore it
    for whatever a script starts in the background, which still has to be stoppable.
    """
    asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    def check() -> None:
        if asked:
            raise _StopAsked

    before = {
        number: signal.signal(number, hear)
        for number in _SIGNALS
        if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _ProgressView:
    """One moving line on a terminal; elsewhere one line per stage, and one every 15 seconds."""

    def __init__(self, status: Status | None, logs: "Sequence[_Log]") -> None:
        self._status, self._logs = status, logs
        self._stages: dict[str, tuple[str, int]] = {}

    def __call__(self, progress: Progress | None) -> None:
        for log in self._logs:
            log.print_new()
        if progress is None:
            if self._status is not None:
                self._status.stop()
            return
        line = f"{progress.name}: {progress.stage}, {progress.seconds:.0f} s"
        shown = (progress.stage, int(progress.seconds / _LINE_EVERY_SECONDS))
        if self._status is not None:
            self._stages[progress.name] = (line, 0)
            self._status.update(" · ".join(text for text, _ in self._stages.values()))
        elif self._stages.get(progress.name) != shown:
            self._stages[progress.name] = shown
            err.print(line)


@contextmanager
def _progress(logs: "Sequence[_Log]") -> Iterator[_ProgressView]:
    if not err.is_terminal:
        yield _ProgressView(None, logs)
        return
    with err.status("starting") as status:
        yield _ProgressView(status, logs)


class _Log:
    """What a server has written since the last look."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path, self._seen = name, path, 0

    def print_new(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._seen:  # shortened: what was last written may be dropped, but nothing comes twice
                self._seen = size
            file.seek(self._seen)
            fresh = file.read()
        whole, newline, _ = fresh.rpartition(b"\n")
        self._seen += len(whole + newline)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            print_line(f"{self._name}| {line}")
