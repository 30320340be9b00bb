"""A server as a process group: started, waited for, and stopped as a whole."""

import http.client
import math
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from qwen3_vllm.errors import ServerDied
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.process import watchdog
from qwen3_vllm.serving.process.bootlog import cause_of_death, stage_of

POLL_SECONDS = 0.5
STOP_SECONDS = 20.0
LOG_SECONDS = 2.0  # for the last lines of a dead server to reach its log
TAIL_LINES = 25


@dataclass(frozen=True)
class Progress:
    """What a booting server is busy with, `seconds` after its start."""

    name: str
    stage: str
    seconds: float


def _local_opener() -> urllib.request.OpenerDirector:
    """Neither a proxy nor a certificate for another name may come between: it is this machine."""
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=anybody))
    return urllib.request.build_opener(*handlers)


_OPENER = _local_opener()
OnProgress = Callable[[Progress], None]


class Server:
    """One server process and all that it starts, as a context manager.

    Its output goes to `log_path`, written afresh and never longer than 16 MiB. It ends with `stop`, with the
    `with` block, and with the process that started it, however that ends. `secret_env` is added to its
    environment and shown nowhere.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        base_url: str,
        log_path: Path,
        *,
        api_key: str | None = None,
        secret_env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.command, self.base_url, self.log_path = name, command, base_url, log_path
        self._api_key = api_key
        self._secret_env = dict(secret_env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._ends_by = math.inf

    def __repr__(self) -> str:
        return f"Server({self.name!r}, {self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The first process of the group, whose id is the group's too; None before the start."""
        return self._process.pid if self._process else None

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative for a signal, as in `subprocess`."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process without waiting for it.

        Raises:
            ServerDied: The program could not be started at all.
        """
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.log_path.write_bytes(b"")
        except OSError as error:
            raise ServerDied(f"cannot write the log {self.log_path}: {error}") from error
        environment = {**os.environ, **self.command.env, **self._secret_env}
        if "QWEN3_VLLM_API_KEY_FILE" in self.command.env:
            environment.pop("VLLM_API_KEY", None)  # vLLM's own guard would refuse the keys of the file
        self._started_at, self._ends_by = time.monotonic(), math.inf
        output, into_output = os.pipe()
        try:
            self._process = subprocess.Popen(
                self.command.argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=into_output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._watchdog = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", watchdog.__file__),
                    *(str(self._process.pid), str(output), str(self.log_path)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[output],
                start_new_session=True,
            )
        except OSError as error:
            raise ServerDied(f"cannot start {self.command.argv[0]}: {error}") from error
        finally:
            os.close(output)
            os.close(into_output)

    def is_ready(self) -> bool:
        """Ask once whether it answers requests.

        Raises:
            ServerDied: It ended; with the cause and the end of its log.
        """
        if self.exit_status is not None:
            raise self.death()
        return self._answers("/health") and self._answers("/v1/models")

    def progress(self) -> Progress:
        """Return where the boot is, read from the log."""
        stage = "starting" if self.command.after_others else stage_of(self._log())
        return Progress(self.name, stage, time.monotonic() - self._started_at)

    def death(self) -> ServerDied:
        """Describe how it ended."""
        if self._watchdog is not None and self._watchdog.stdout is not None:
            wait([self._watchdog.stdout.fileno()], LOG_SECONDS)
        log = self._log()
        return ServerDied(
            f"the {self.name} server died: {cause_of_death(log, self.exit_status or 0)}\n"
            f"last lines of {self.log_path}:\n{_tail(log)}"
        )

    def terminate(self) -> None:
        """Ask the group to end, without waiting; the time that it has for that begins."""
        self._ends_by = min(self._ends_by, time.monotonic() + STOP_SECONDS)
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the process group, politely first, and wait until it is gone. Does nothing a second time."""
        if self._process is None:
            return
        self.terminate()
        while _is_group_alive(self._process) and time.monotonic() < self._ends_by:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._watchdog is not None:
            self._watchdog.communicate(b".")
            self._watchdog = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _answers(self, route: str) -> bool:
        request = urllib.request.Request(self.base_url + route)
        if self._api_key:
            request.add_header("Authorization", f"Bearer {self._api_key}")
        try:
            with _OPENER.open(request, timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def _log(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 2**18))
                return log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""


def wait_until_ready(
    servers: Sequence[Server], *, timeout: float = 1800.0, on_progress: OnProgress | None = None
) -> None:
    """Wait until every server answers.

    Raises:
        ServerDied: One ended, or `timeout` seconds went by. The servers are left to the caller to stop.
    """
    deadline = time.monotonic() + timeout
    waiting = list(servers)
    while True:
        waiting = [server for server in waiting if not server.is_ready()]
        if not waiting:
            return
        if on_progress is not None:
            for server in waiting:
                on_progress(server.progress())
        if time.monotonic() > deadline:
            late = waiting[0]
            raise ServerDied(
                f"the {late.name} server was not ready after {timeout:.0f} s (busy with: "
                f"{late.progress().stage})\nlast lines of {late.log_path}:\n{_tail(late._log())}"
            )
        time.sleep(POLL_SECONDS)


def _tail(log: str) -> str:
    lines = [line for line in log.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])


def _is_group_alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the group is left; reaps the first process, else it would count for ever."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
