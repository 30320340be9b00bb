"""Runs killed at any moment, and gone on with: the output is as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.bulk import embed_files, pipeline
from tests.bulk.runs import Canned, errors, ids, vectors, write_lines
from tests.faults import Reply, Request, serve

ROWS = 30


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def write_input(path: Path) -> Path:
    lines = [f'{{"id": "d{n}", "text": "document {n}"}}' for n in range(ROWS)]
    lines[7] = "no JSON"
    lines[24] = '{"id": "d24"}'
    return write_lines(path, lines)


def check(out: Path, canned: Canned) -> None:
    good = [n for n in range(ROWS) if n not in (7, 24)]
    assert ids(out) == [f"d{n}" for n in good]
    np.testing.assert_allclose(vectors(out), [canned.vector(f"document {n}") for n in good], rtol=1e-6)
    assert [each["row"] for each in errors(out)] == [8, 25]
    assert list((out / "_progress").iterdir()) == []


class Countdown:
    """Ends the run at the n-th step that changes the disk, before it or after it."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            self._count()
            result = real(*args, **options)
            self._count()
            return result

        return step

    def _count(self) -> None:
        self.left -= 1
        if self.left <= 0:  # and the dead do nothing more
            raise Killed


@pytest.mark.usefixtures("small_chunks")
def test_a_run_cut_off_at_any_step_on_the_disk_goes_on_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of the run in turn: a new file under its name, one flushed, one removed."""
    path = write_input(tmp_path / "in.jsonl")
    canned = Canned()
    # The server of a run that was cut off may still be hearing from it.
    with serve(Canned()) as left, serve(canned) as server:
        client = EmbeddingClient(base_url=server.base_url)
        for step in range(1, 1000):
            out = tmp_path / f"out{step}"
            countdown = Countdown(step)
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", countdown(Path.replace))
                patch.setattr(Path, "unlink", countdown(Path.unlink))
                patch.setattr(os, "fsync", countdown(os.fsync))
                try:
                    embed_files([path], out, client=EmbeddingClient(base_url=left.base_url), part_rows=20)
                    break
                except Killed:
                    pass
            chunks_before = len(list((out / "_progress").glob("*.arrow")))
            parts_before = len(list(out.glob("*.parquet")))
            canned.texts.clear()
            embed_files([path], out, client=client, part_rows=20)
            check(out, canned)
            missing = max(0, ROWS - max(20 * parts_before, 10 * chunks_before))
            assert len(canned.documents()) <= missing, f"step {step}: asked again for what was done"
    assert step > 40


def test_chunks_that_another_release_cut_differently_are_not_mistaken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_input(tmp_path / "in.jsonl")
    canned, out = Canned(), tmp_path / "out"
    with serve(canned) as server:
        client = EmbeddingClient(base_url=server.base_url)
        monkeypatch.setattr(pipeline, "CHUNK_DOCUMENTS", 7)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Path, "replace", Countdown(9)(Path.replace))
            embed_files([path], out, client=client)
        assert list((out / "_progress").glob("*.arrow"))
        monkeypatch.setattr(pipeline, "CHUNK_DOCUMENTS", 10)
        embed_files([path], out, client=client)
    check(out, canned)


@pytest.fixture
def killing_server() -> Iterator[tuple[str, Canned, Callable[[int], None], dict[str, int]]]:
    """A server that kills its client when it has been asked for so many documents."""
    canned, limit = Canned(), [10**9]
    victim: dict[str, int] = {}
    lock = threading.Lock()

    def answer(request: Request) -> Reply | None:
        with lock:
            reply = canned(request)
            if len(canned.texts) >= limit[0] and "pid" in victim:
                os.kill(victim.pop("pid"), signal.SIGKILL)
        return reply

    def kill_at(texts: int) -> None:
        canned.texts.clear()
        limit[0] = texts

    with serve(answer) as server:
        yield server.base_url, canned, kill_at, victim


def test_kill_9_at_random_points_loses_and_doubles_nothing(
    tmp_path: Path, killing_server: tuple[str, Canned, Callable[[int], None], dict[str, int]]
) -> None:
    url, canned, kill_at, victim = killing_server
    path = write_lines(tmp_path / "in.txt", (f"document {n}" for n in range(2000)))
    out = tmp_path / "out"
    chunk = 64
    small = f"from qwen3_vllm.bulk import pipeline; pipeline.CHUNK_DOCUMENTS = {chunk}"
    command = [sys.executable, "-c", f"{small}; from qwen3_vllm.cli import app; app()", "embed", str(path)]
    command += ["-o", str(out), "--base-url", url, "--part-rows", "800"]
    asked: list[str] = []
    for texts in (3, random.Random(7).randrange(300, 1400), 10**9):
        kill_at(texts)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        victim["pid"] = process.pid
        _, words = process.communicate(timeout=100)
        victim.clear()
        asked += canned.documents()
        assert process.returncode == (0 if texts == 10**9 else -signal.SIGKILL), words
    assert ids(out) == [f"{path}:{n + 1}" for n in range(2000)]
    np.testing.assert_allclose(vectors(out), [canned.vector(f"document {n}") for n in range(2000)], rtol=1e-6)
    # Each kill costs at most three chunks at the server, and three on their way to the disk.
    assert len(asked) <= 2000 + 2 * 6 * chunk
