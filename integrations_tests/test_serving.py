"""The launcher with a real vLLM: as a user runs it, how it ends, and how it tells of a death."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.serving import ServeOptions, ServerDied, start_server
from qwen3_vllm.serving.machine.ports import free_port
from qwen3_vllm.serving.machine.vllm_build import SHIM

from .conftest import RunningServer

ROOT = Path(__file__).parent.parent
BOOT_SECONDS = 300


@contextmanager
def serving(output: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `scripts/serve.sh` with its output in a file; killed at the end if it still runs."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(ROOT / "scripts" / "serve.sh"), *arguments], stdout=file, stderr=file, env=environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(output: Path, text: str, process: subprocess.Popen[bytes], count: int = 1) -> str:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        shown = output.read_text()
        if shown.count(text) >= count:
            return shown
        if process.poll() is not None:
            break
        time.sleep(0.5)
    return pytest.fail(f"{text!r} was not shown {count} times:\n{output.read_text()}")


def processes_of(port: int) -> list[int]:
    """Return the processes of the group whose first one serves this port."""
    leaders = [pid for pid in pids() if f"--port\0{port}\0".encode() in _read(f"/proc/{pid}/cmdline")]
    groups = {os.getpgid(pid) for pid in leaders if SHIM.encode() in _read(f"/proc/{pid}/cmdline")}
    return [pid for pid in pids() if _group(pid) in groups]


def pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def still_running(processes: list[int]) -> list[int]:
    return [pid for pid in processes if (stat := _read(f"/proc/{pid}/stat")) and b") Z " not in stat]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_serve_sh_shows_progress_serves_and_stops_clean(checkpoints: Path, tmp_path: Path) -> None:
    output, port = tmp_path / "output", free_port()
    options = ("--models-dir", str(checkpoints), "--port", str(port), "--log-dir", str(tmp_path / "logs"))
    with serving(output, "embedding", "Qwen3-Embedding-random", *options) as process:
        shown = wait_for(output, "ready at", process)
        assert re.search(r"embedding: importing vLLM, \d+ s", shown)
        url = f"http://127.0.0.1:{port}/v1"
        assert f"ready at {url}" in shown
        models = requests.get(f"{url}/models", timeout=30).json()
        assert models["data"][0]["id"] == "qwen3_embedding"
        body = {"model": "qwen3_embedding", "input": ["a"], "dimensions": 32}
        answer = requests.post(f"{url}/embeddings", json=body, timeout=60).json()
        assert len(answer["data"][0]["embedding"]) == 32
        group = processes_of(port)
        assert len(group) >= 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert still_running(group) == []
    assert "vLLM" in (tmp_path / "logs" / f"embedding-{port}.log").read_text()


def test_both_stop_when_one_is_killed(checkpoints: Path, tmp_path: Path) -> None:
    output, port = tmp_path / "output", free_port()
    options = (
        *("--models-dir", str(checkpoints), "--port", str(port), "--log-dir", str(tmp_path)),
        *("--embedding-model", "Qwen3-Embedding-random", "--reranker-model", "Qwen3-Reranker-random"),
    )
    with serving(output, "both", *options) as process:
        wait_for(output, "ready at", process, count=2)
        embedding, reranker = processes_of(port), processes_of(port + 1)
        assert embedding
        assert reranker
        os.killpg(os.getpgid(embedding[0]), signal.SIGKILL)
        assert process.wait(60) == 1
    assert still_running([*embedding, *reranker]) == []
    assert "the embedding server died" in output.read_text()


def test_a_flag_that_vllm_does_not_know_is_told(checkpoints: Path, tmp_path: Path) -> None:
    model = str(checkpoints / "Qwen3-Embedding-random")
    options = ServeOptions("embedding", model, port=0, extra_args=("--no-such-flag",))
    with pytest.raises(
        ServerDied, match=r"does not know a flag[\s\S]*unrecognized arguments: --no-such-flag"
    ):
        start_server(options, log_path=tmp_path / "vllm.log", timeout=BOOT_SECONDS)


@pytest.mark.parametrize("input_type", ["search_query", "search_document"])
def test_coheres_input_types_give_the_vectors_of_this_package(
    embedding_server: RunningServer, input_type: str
) -> None:
    texts = ["What is the capital of China?", "法国首都是哪里？", "A list is a mutable sequence. " * 20]
    body = {"model": "qwen3_embedding", "texts": texts, "input_type": input_type}
    answer = requests.post(
        f"{embedding_server.base_url}/v2/embed", json={**body, "embedding_types": ["float"]}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    theirs = np.array(answer.json()["embeddings"]["float"])
    client = EmbeddingClient(base_url=embedding_server.base_url)
    ours = client.embed_queries(texts) if input_type == "search_query" else client.embed_documents(texts)
    assert 1 - (theirs * ours).sum(axis=1) == pytest.approx(0, abs=1e-6)


def test_requests_leave_no_line_in_the_log(reranker_server: RunningServer) -> None:
    def ask(number: int) -> None:
        body = {"text_1": f"a {number}", "text_2": ["b"]}
        assert requests.post(f"{reranker_server.base_url}/v1/score", json=body, timeout=60).status_code == 200
        requests.get(f"{reranker_server.base_url}/{'x' * 50_000}", timeout=60)

    ask(0)  # the first of some notes
    time.sleep(1)
    before = reranker_server.log_path.stat().st_size
    for number in range(1, 11):
        ask(number)
    time.sleep(1)
    # vLLM's figures of every ten seconds may come between.
    assert reranker_server.log_path.stat().st_size - before < 1500
