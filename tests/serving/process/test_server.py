"""Starting, waiting for and stopping processes; small Python programs stand in for vLLM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen3_vllm.serving import Progress, Server, ServerDied, running, wait_until_ready
from qwen3_vllm.serving.machine.ports import free_port
from qwen3_vllm.serving.options import Command

ANSWERS = """
import http.server, os, signal, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = os.environ.get("VLLM_API_KEY")
        closed = key and self.path != "/health" and self.headers.get("authorization") != f"Bearer {key}"
        self.send_response(401 if closed else 200)
        self.end_headers()
print("Starting to load model")
print("key file", os.environ.get("QWEN3_VLLM_API_KEY_FILE"), "key", bool(os.environ.get("VLLM_API_KEY")))
sys.stdout.flush()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    print(subprocess.Popen([sys.executable, "-c", open(__file__).read()]).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often whether a server answers, which takes these no time."""
    monkeypatch.setattr("qwen3_vllm.serving.process.server.POLL_SECONDS", 0.05)


def server(tmp_path: Path, program: str = ANSWERS, name: str = "fake", **options: object) -> Server:
    port = free_port()
    script = tmp_path / f"{name}.py"
    script.write_text(program)
    command = Command((sys.executable, str(script), str(port)), dict(options.pop("env", {})))  # type: ignore[call-overload]
    return Server(name, command, f"http://127.0.0.1:{port}", tmp_path / f"{name}.log", **options)  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_running(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_is_ready_when_it_answers_and_gone_after_the_block(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with server(tmp_path) as fake:
        fake.start()
        wait_until_ready([fake], timeout=30, on_progress=seen.append)
        pid = fake.pid
        assert pid is not None
        assert is_running(pid)
    assert not is_running(pid)
    assert all(progress.name == "fake" for progress in seen)


def test_the_key_opens_the_readiness_check_and_stays_out_of_sight(tmp_path: Path) -> None:
    with server(tmp_path, api_key="s3cret", secret_env={"VLLM_API_KEY": "s3cret"}) as fake:
        fake.start()
        wait_until_ready([fake], timeout=30)
        shown = Path(f"/proc/{fake.pid}/cmdline").read_text() + fake.log_path.read_text() + repr(fake)
        assert "s3cret" not in shown


def test_a_key_file_keeps_the_environments_key_from_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "other")
    with server(tmp_path, env={"QWEN3_VLLM_API_KEY_FILE": "/keys"}) as fake:
        fake.start()
        wait_until_ready([fake], timeout=30)
        assert eventually(lambda: "key file /keys key False" in fake.log_path.read_text())


def test_a_proxy_does_not_come_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with server(tmp_path) as fake:
        fake.start()
        wait_until_ready([fake], timeout=30)


def test_a_death_is_told_with_cause_and_log(tmp_path: Path) -> None:
    with server(tmp_path, "print('torch.OutOfMemoryError: CUDA out of memory'); raise SystemExit(1)") as fake:
        fake.start()
        with pytest.raises(ServerDied, match=r"out of memory[\s\S]*torch\.OutOfMemoryError") as death:
            wait_until_ready([fake], timeout=30)
        assert str(fake.log_path) in str(death.value)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = Server("x", Command((str(tmp_path / "none"),), {}), "http://127.0.0.1:1", tmp_path / "log")
    with pytest.raises(ServerDied, match="cannot start"):
        missing.start()


def test_waiting_ends(tmp_path: Path) -> None:
    with server(tmp_path, "import time; time.sleep(600)") as fake:
        fake.start()
        with pytest.raises(ServerDied, match="not ready after 0 s"):
            wait_until_ready([fake], timeout=0.2)


def test_processes_that_ignore_sigterm_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.process.server.STOP_SECONDS", 0.2)
    fake = server(tmp_path, STUBBORN)
    fake.start()
    assert eventually(lambda: fake.log_path.read_text().endswith("\n"))
    child = int(fake.log_path.read_text())
    assert is_running(child)
    fake.stop()
    assert eventually(lambda: not is_running(child))
    fake.stop()


def test_several_that_ignore_sigterm_are_killed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3_vllm.serving.process.server.STOP_SECONDS", 2.0)
    fakes = [server(tmp_path, STUBBORN, name=f"fake-{number}") for number in range(4)]
    for fake in fakes:
        fake.start()
    assert eventually(lambda: all(fake.log_path.read_text().endswith("\n") for fake in fakes))
    for fake in fakes:
        fake.terminate()
    began = time.monotonic()
    for fake in fakes:
        fake.stop()
    assert time.monotonic() - began < 5


def test_one_death_stops_the_others(tmp_path: Path) -> None:
    fine = server(tmp_path, name="fine")
    doomed = server(tmp_path, "import time; time.sleep(0.2); raise SystemExit(3)", name="doomed")
    with pytest.raises(ServerDied, match="the doomed server died"), running([fine, doomed], timeout=30):
        pytest.fail("not reached")
    assert fine.pid is not None
    assert not is_running(fine.pid)


def test_those_on_a_gpu_start_one_after_another(tmp_path: Path) -> None:
    first, second = server(tmp_path, name="first"), server(tmp_path, name="second")
    first.command = Command(first.command.argv, {}, measures_memory=True)
    second.start = lambda: order.append(first.is_ready())  # type: ignore[method-assign]
    order: list[bool] = []
    with first, pytest.raises(ZeroDivisionError), running([first], timeout=30):
        second.start()
        raise ZeroDivisionError
    assert order == [True]


def test_a_balancer_starts_when_its_servers_answer(tmp_path: Path) -> None:
    first, front = server(tmp_path, name="first"), server(tmp_path, name="front")
    front.command = Command(front.command.argv, {}, after_others=True)
    start, order = front.start, list[bool]()
    front.start = lambda: (order.append(first.is_ready()), start())[1]  # type: ignore[method-assign]
    with running([first, front], timeout=30):
        assert order == [True]
        assert front.progress().stage == "starting"  # a balancer imports no vLLM


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_starter(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    script = tmp_path / "answers.py"
    script.write_text(ANSWERS)
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib\n"
            "from qwen3_vllm.serving import Server\n"
            "from qwen3_vllm.serving.options import Command\n"
            f"server = Server('s', Command((sys.executable, {str(script)!r}, '{port}'), {{}}), 'http://x',"
            f" pathlib.Path({str(tmp_path / 'log')!r}))\n"
            "server.start()\n"
            "print(server.pid, flush=True)\n"
            "time.sleep(600)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert is_running(pid)
    os.kill(starter.pid, number)
    starter.communicate()
    assert eventually(lambda: not is_running(pid))
