"""`qwen3-vllm embed`, as a user runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwen3_vllm.bulk import Progress
from qwen3_vllm.cli import _embed_progress, app
from tests.bulk.runs import Canned, errors, ids, write_jsonl, write_lines
from tests.faults import Reply, Request, SocketServer, serve

COMMAND = [sys.executable, "-c", "from qwen3_vllm.cli import app; app()", "embed"]


@pytest.fixture
def server() -> Iterator[SocketServer]:
    with serve(Canned(dimensions=1024)) as running:
        yield running


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["embed", *map(str, arguments)], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_embeds_and_says_how_much(tmp_path: Path, server: SocketServer) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", 1234)
    code, out, err = run(path, "-o", tmp_path / "out", "--base-url", server.base_url)
    assert code == 0, err
    assert out == ""
    assert re.search(r"1,234 documents embedded in [\d.]+ s, [\d,]+ documents/s, [\d,]+ characters/s", err)
    assert len(ids(tmp_path / "out")) == 1234


def test_several_addresses_share_the_work(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", 100)
    with serve(Canned()) as one, serve(Canned()) as two, serve(Canned()) as three:
        addresses = ["--base-url", f"{one.base_url},{two.base_url}", "--base-url", three.base_url]
        code, _, err = run(path, "-o", tmp_path / "out", *addresses, "--batch-size", "4")

        assert code == 0, err
        assert ids(tmp_path / "out") == [f"d{n}" for n in range(100)]
        asked = [len(server.bodies("/v1/embeddings")) for server in (one, two, three)]
        assert asked[0] < min(asked[1:])  # the first is kept for queries


def test_tokens_a_second_are_shown_where_the_server_counts_them(
    tmp_path: Path, embedding_server: SocketServer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", 10)
    _, _, err = run(path, "-o", tmp_path / "out", "--base-url", embedding_server.base_url)
    assert re.search(r"about [\d,]+ tokens/s", err)


def test_documents_that_were_cut_are_counted_once(tmp_path: Path, embedding_server: SocketServer) -> None:
    path = write_lines(tmp_path / "a.txt", ["x" * 3000, "y" * 4000, "short"])
    arguments = (path, "-o", tmp_path / "out", "--base-url", embedding_server.base_url)
    code, _, err = run(*arguments)
    assert code == 0
    assert err.count("had to be cut") == 1
    assert "2 of 3 documents had to be cut to the server's 2048 tokens; the longest had 4001" in err

    _, out, err = run(*arguments, "--json")
    assert json.loads(out)["truncated"] == 2
    assert err == ""


def test_json_summary(tmp_path: Path, server: SocketServer) -> None:
    path = write_lines(tmp_path / "a.jsonl", ['{"text": "x"}', "{"])
    code, out, _ = run(path, "-o", tmp_path / "out", "--base-url", server.base_url, "--json")
    assert code == 1
    summary = json.loads(out)
    assert (summary["embedded"], summary["failed"], summary["out"]) == (1, 1, str(tmp_path / "out"))


def test_failed_rows_make_it_exit_1_and_say_where_they_are(tmp_path: Path, server: SocketServer) -> None:
    path = write_lines(tmp_path / "a.jsonl", ['{"text": "x"}', "{"])
    code, _, err = run(path, "-o", tmp_path / "out", "--base-url", server.base_url)
    assert code == 1
    assert f"1 row failed, see {tmp_path / 'out' / 'errors.jsonl'}" in err
    assert len(errors(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.jsonl"], "missing.jsonl is not there"),
        (["{good}", "--base-url", "nonsense"], "--base-url: base_url must look like"),
        (["{good}", "--text-field", "body", "--format", "csv"], "no column 'body'"),
        (["{good}", "--workers", "4:2"], "give MIN or MIN:MAX"),
        (["-", "--format", "parquet"], "Parquet cannot be read from standard input"),
        (["{good}", "--encoding", "rot13"], "--encoding 'rot13' is not a text encoding"),
        (["{good}", "--text-field", "document.text"], "no column 'document.text', but has id, text"),
    ],
)
def test_what_is_refused_exits_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    good = write_jsonl(tmp_path / "a.jsonl", 1)
    code, _, err = run(*(each.format(good=good) for each in arguments), "-o", tmp_path / "out")
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_no_server_exits_1_and_says_what_to_start(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", 1)
    code, _, err = run(path, "-o", tmp_path / "out", "--base-url", "http://127.0.0.1:9", "--max-retries", 0)
    assert code == 1
    assert "qwen3-vllm serve embedding" in err
    assert "run the same again to resume it" in err


def test_a_run_that_nobody_watches_says_every_half_minute_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_embed_progress, "_LINE_EVERY_SECONDS", 0.001)

    def heard(words: str) -> bool:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if words in capsys.readouterr().err:
                return True
        return False

    with _embed_progress._lines() as show:
        assert heard("reading inputs\n")
        show(Progress(10))
        assert heard("0 of 10 rows\n")
    capsys.readouterr()
    assert not [each for each in threading.enumerate() if each.name == "qwen3-vllm-progress"]


@pytest.mark.parametrize(
    ("done", "line"),
    [
        (
            Progress(1_000_000, 10_000, 9_000, 500, 500, 90_000, 0.25, 60.0),
            "10,000 of 1,000,000 rows, 150 documents/s, about 375 tokens/s, 500 failed, about 1 h 50 min",
        ),
        (
            Progress(100, 90, 90, 0, 0, 900, None, 9.0),
            "90 of 100 rows, 10 documents/s, 100 characters/s, less than",
        ),
        (Progress(100, 50, 0, 50), "50 of 100 rows"),
    ],
)
def test_the_line_tells_the_rate_and_the_time_left(done: Progress, line: str) -> None:
    assert _embed_progress._line(done).startswith(line)


def test_names_that_are_not_utf8(tmp_path: Path, server: SocketServer) -> None:
    path, out = tmp_path / os.fsdecode(b"caf\xe9.jsonl"), tmp_path / os.fsdecode(b"\xff")
    try:
        write_lines(path, ['{"text": "x"}', "{"])
    except OSError:
        pytest.skip("this file system wants UTF-8")
    for _ in range(2):
        code, _, err = run(path, "-o", out, "--base-url", server.base_url)
        assert (code, errors(out)[0]["input"]) == (1, f"{tmp_path}/caf\\xe9.jsonl"), err
    assert ids(Path(shutil.copytree(out, tmp_path / "copy"))) == [f"{tmp_path}/caf\\xe9.jsonl:1"]


def test_standard_input(tmp_path: Path, server: SocketServer) -> None:
    result = subprocess.run(
        [*COMMAND, "-", "-o", tmp_path / "out", "--base-url", server.base_url, "--format", "csv"],
        input="id,text\n7,seven\n8,eight\n",
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert ids(tmp_path / "out") == ["7", "8"]
    assert "\x1b" not in result.stderr  # no bar where nobody looks


@pytest.mark.usefixtures("terminal_signals")
def test_ctrl_c_ends_it_at_once_with_a_word_on_how_to_go_on(tmp_path: Path) -> None:
    canned = Canned()
    process: list[subprocess.Popen[str]] = []

    def answer(request: Request) -> Reply | None:
        if request.path == "/v1/embeddings" and "document 5" in request.json["input"]:
            os.kill(process[0].pid, signal.SIGINT)
            return None  # never: Ctrl-C must not wait for it
        return canned(request)

    path = write_jsonl(tmp_path / "a.jsonl", 2000)
    with serve(answer) as server:
        command = [*COMMAND, str(path), "-o", str(tmp_path / "out"), "--base-url", server.base_url]
        process.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        _, err = process[0].communicate(timeout=30)
    assert process[0].returncode == 1
    assert err.strip() == "error: stopped; the same command resumes here"


# The peak of memory after each run, from the process's own status: rusage counts its parent's before exec.
PEAKS = """
import sys
from pathlib import Path
from qwen3_vllm.cli import app
url, *runs = sys.argv[1:]
for path, out in zip(runs[::2], runs[1::2]):
    app(["embed", path, "-o", out, "--base-url", url], standalone_mode=False)
    status = Path("/proc/self/status").read_text()
    print(status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, server: SocketServer) -> None:
    """The 17,000 vectors of 1,024 components that are more are 66 MiB."""
    few, many = write_jsonl(tmp_path / "few.jsonl", 5_000), write_jsonl(tmp_path / "many.jsonl", 22_000)
    runs = [few, tmp_path / "1", many, tmp_path / "2"]
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, server.base_url, *runs], check=True, capture_output=True, text=True
    )
    after_few, after_many = (int(kib) / 1024 for kib in done.stdout.split())
    assert after_many < after_few + 40
    assert after_many < 500
