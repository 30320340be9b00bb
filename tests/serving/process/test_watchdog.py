"""A server's log: whole as long as it is short, and never long."""

import subprocess
import sys
from pathlib import Path

import pytest

from qwen3_vllm.serving import ServerDied
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.process import watchdog
from qwen3_vllm.serving.process.server import Server, wait_until_ready

NOTE = b"WARNING [api_router.py:61] To indicate that Score API is not part of standard OpenAI API, we have\n"


def written(path: Path, *pieces: bytes) -> bytes:
    log = watchdog.Log(path)
    for piece in pieces:
        log.write(piece)
    return path.read_bytes()


def test_a_short_log_is_kept_as_it_is(tmp_path: Path) -> None:
    pieces = (b"one\ntw", b"o\n\n", b"10%\r20%\r", b"\xff\x00\n", b"no end")
    assert written(tmp_path / "log", *pieces) == b"".join(pieces)


def test_a_long_line_is_cut_even_if_it_comes_in_pieces(tmp_path: Path) -> None:
    path = b"x" * 30_000
    log = written(tmp_path / "log", b"GET /" + path, path, path + b" 401\n", b"next\n")
    first, second = log.splitlines()
    assert first == b"GET /" + b"x" * (watchdog.LINE_BYTES - 5) + b"... (cut)"
    assert second == b"next"


def test_what_is_written_at_every_call_is_kept_once(tmp_path: Path) -> None:
    assert written(tmp_path / "log", NOTE, b"a\n" + NOTE + b"b\n", NOTE) == NOTE + b"a\nb\n"


def test_a_long_log_keeps_its_head_and_its_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOG_BYTES", 4000)
    monkeypatch.setattr(watchdog, "HEAD_BYTES", 100)
    monkeypatch.setattr(watchdog, "TAIL_BYTES", 1000)
    log = watchdog.Log(tmp_path / "log")
    for number in range(2000):
        log.write(b"line %d\n" % number)
        assert (tmp_path / "log").stat().st_size <= 4000
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert lines[:2] == [b"line 0", b"line 1"]
    assert lines[-1] == b"line 1999"
    assert len([line for line in lines if b"bytes dropped" in line]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_does_not_end_it() -> None:
    log = watchdog.Log(Path("/dev/full"))
    log.write(b"lost\n")
    log.write(b"lost too\n")


def test_the_last_words_of_a_server_are_in_its_log(tmp_path: Path) -> None:
    program = "print('first'); print('x' * 100_000); print('GET /' + 'y' * 60_000); print('last'); exit(3)"
    command = Command((sys.executable, "-c", program), {})
    server = Server("fake", command, "http://127.0.0.1:1", tmp_path / "log")
    with server, pytest.raises(ServerDied, match="last"):
        server.start()
        wait_until_ready([server], timeout=60)
    assert len((tmp_path / "log").read_bytes()) < 3 * watchdog.LINE_BYTES


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = Server("fake", Command(("true",), {}), "http://127.0.0.1:1", tmp_path / "file" / "log")
    with pytest.raises(ServerDied, match="cannot write the log"):
        server.start()


def test_a_signal_to_all_processes_of_a_service_loses_no_line(tmp_path: Path) -> None:
    program = (
        "import signal, time\n"
        "def say(*_):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    print('ended', flush=True)\n    raise SystemExit\n"
        "signal.signal(signal.SIGTERM, say)\nprint('ready', flush=True)\ntime.sleep(600)\n"
    )
    server = Server("fake", Command((sys.executable, "-c", program), {}), "http://x", tmp_path / "log")
    with server:
        server.start()
        while "ready\n" not in (tmp_path / "log").read_text():
            assert server.exit_status is None
        keeper = server._watchdog
        assert isinstance(keeper, subprocess.Popen)
        keeper.terminate()
        server.terminate()
    assert (tmp_path / "log").read_text() == "ready\nended\n"
