"""The foreground: progress, signals, exit; a small program stands in for vLLM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen3_vllm.serving.machine.ports import free_port
from qwen3_vllm.serving.process.mps import PROGRAM as PROGRAM_OF_MPS

PROGRAM = """
import sys
from pathlib import Path
import typer
from qwen3_vllm.cli import _supervise
from qwen3_vllm.serving import Server
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.process import server as process
process.POLL_SECONDS = _supervise._LOOK_EVERY_SECONDS = 0.05
folder, port, server_program, show_log = sys.argv[1:]
command = Command((sys.executable, "-c", server_program, port), {})
server = Server("fake", command, f"http://127.0.0.1:{port}", Path(folder) / "fake.log")
with _supervise.until_a_signal() as check_signals:
    _supervise.supervise([server], check_signals, boot_timeout=30, show_log=bool(show_log))
"""
WAITS_FOR_MPS = """
import sys
from pathlib import Path
from qwen3_vllm.cli._supervise import until_a_signal
from qwen3_vllm.serving.process.mps import mps_daemon
with until_a_signal() as check_signals, mps_daemon(Path(sys.argv[1]), check_signals):
    sys.exit("it listens")
"""
ANSWERS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
print("Starting to load model", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
HANGS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


def start(tmp_path: Path, program: str, show_log: str = "", before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", before + PROGRAM, str(tmp_path), str(free_port()), program, show_log],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"{text!r} was not shown")


@pytest.mark.usefixtures("terminal_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, ANSWERS) as process:
        wait_for_line(process, "ready at http://127.0.0.1:")
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped" in errors


def test_a_signal_at_any_moment_leaves_no_lock_held(tmp_path: Path) -> None:
    interrupted = """
import os, signal, subprocess
poll = subprocess.Popen.poll
def interrupted_poll(process):
    process._waitpid_lock.acquire()
    os.kill(os.getpid(), signal.SIGTERM)
    process._waitpid_lock.release()
    return poll(process)
subprocess.Popen.poll = interrupted_poll
"""
    with start(tmp_path, ANSWERS, before=interrupted) as process:
        try:
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "stopped" in errors


@pytest.mark.usefixtures("terminal_signals")
def test_a_signal_during_boot_stops_it_too(tmp_path: Path) -> None:
    with start(tmp_path, HANGS) as process:
        wait_for_line(process, "fake: importing vLLM, 0 s")
        log = tmp_path / "fake.log"
        while not log.read_text().strip():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_mps_starts_leaves_nothing_of_it(tmp_path: Path, number: signal.Signals) -> None:
    daemon, log = tmp_path / PROGRAM_OF_MPS, tmp_path / "mps.log"
    daemon.write_text('#!/bin/sh\n[ "$1" = -f ] && echo in $CUDA_MPS_PIPE_DIRECTORY && exec sleep 600\n')
    daemon.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [sys.executable, "-c", WAITS_FOR_MPS, str(log)]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 30
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "stopped\n")
    assert not Path(log.read_text().split()[1]).exists()


def test_ctrl_c_is_heard_in_the_background_of_a_script(tmp_path: Path) -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    with start(tmp_path, ANSWERS, before=ignored) as process:
        wait_for_line(process, "ready")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_nohup_is_honoured(tmp_path: Path) -> None:
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with start(tmp_path, ANSWERS, before=nohup) as process:
        wait_for_line(process, "ready")
        ignored = Path(f"/proc/{process.pid}/status").read_text().partition("SigIgn:")[2].split()[0]
        assert int(ignored, 16) >> (signal.SIGHUP - 1) & 1
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_log_is_shown_on_request(tmp_path: Path) -> None:
    with start(tmp_path, ANSWERS, show_log="yes") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "fake| Starting to load model\n"
        process.terminate()
        process.communicate(timeout=30)
