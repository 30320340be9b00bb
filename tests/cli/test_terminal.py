"""What commands print: nothing that controls a terminal, on streams of any encoding, full or closed."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm.bulk import embed_files
from qwen3_vllm.cli import app
from qwen3_vllm.cli._terminal import printable
from tests.faults import Reply, Request, serve

QUERY = "为什么看不到月亮的背面？"
TEXTS = ["月球总以同一面朝向地球。", "Tides 🌊 rise twice a day.", "café"]
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b2J\x7f\u202e\r\x08"


pytestmark = pytest.mark.usefixtures("both_servers")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "语料.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), "utf-8")
    return path


def commands(corpus: Path) -> dict[str, list[str]]:
    index = corpus.parent / "索引"
    embed_files([corpus], index)
    nobody = ["--embedding-url", "http://127.0.0.1:9"]
    model = ["Qwen/Qwen3-Embedding-0.6B", "--served-model-name", "名"]
    return {
        "help": ["--help"],
        "help of embed": ["embed", "--help"],
        "no such command": ["命令"],
        "rerank": ["rerank", QUERY, str(corpus)],
        "rerank --json": ["rerank", QUERY, str(corpus), "--json"],
        "rerank of nothing": ["rerank", QUERY, str(corpus.parent / "无.txt")],
        "search": ["search", QUERY, str(index)],
        "search --json": ["search", QUERY, str(index), "--json"],
        "search --no-rerank": ["search", QUERY, str(index), "--no-rerank"],
        "embed": ["embed", str(corpus), "-o", str(corpus.parent / "新")],
        "embed --json": ["embed", str(corpus), "-o", str(corpus.parent / "又新"), "--json"],
        "doctor": ["doctor", *nobody],
        "doctor --json": ["doctor", "--json", *nobody],
        "serve": ["serve", "embedding", *model, "--dry-run", "--vllm-version", "0.30.0"],
        "doctor --html": ["doctor", "--html", str(corpus.parent / "无" / "页.html"), *nobody],
    }


def run_on(encoding: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        app(list(arguments), prog_name="qwen3-vllm")
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))
    return end.value.code, texts[0], texts[1]


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "cp1252", "utf-16"])
def test_no_command_minds_the_encoding_of_its_streams(
    corpus: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, arguments in commands(corpus).items():
        code, out, err = run_on(encoding, arguments, monkeypatch)
        expected = {"no such command": 2, "rerank of nothing": 2, "doctor --html": 2}
        expected |= {"doctor": 1, "doctor --json": 1}
        assert code == expected.get(name, 0), (name, out, err)
        if "--json" in arguments:
            json.loads(out)


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "latin-1"])
def test_json_says_the_same_in_every_encoding(
    corpus: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run_on(encoding, ["rerank", QUERY, str(corpus), "--json"], monkeypatch)
    found = json.loads(out)
    assert found["query"] == QUERY
    assert {each["text"] for each in found["results"]} == set(TEXTS)


def run(arguments: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "from qwen3_vllm.cli import app; app(prog_name='qwen3-vllm')"]
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*program, *arguments], encoding="utf-8", errors="replace", **given)


def test_a_process_on_an_ascii_console_prints_and_exits_0(corpus: Path) -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env.pop("PYTHONIOENCODING", None)
    done = run(["rerank", "moon", str(corpus)], env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u6708" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("command", ["rerank moon {corpus} --json", "--help"])
def test_a_full_output_is_an_error(corpus: Path, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(command.format(corpus=corpus).split(), stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


def test_a_reader_that_has_gone_ends_a_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(["--help"], stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_broken_standard_error_does_not_keep_work_from_being_done(corpus: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(["embed", str(corpus), "-o", str(tmp_path / "out"), "--json"], stderr=writer)
    os.close(writer)
    assert done.returncode == 0
    assert json.loads(done.stdout)["embedded"] == len(TEXTS)


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors in the child")
def test_closed_streams_are_no_error(corpus: Path) -> None:
    done = run(["rerank", "moon", str(corpus)], preexec_fn=lambda: (os.close(1), os.close(2)))
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["rerank", "moon", "-"], ["embed", "-", "-o", "{out}"]])
def test_a_closed_standard_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = run_on("utf-8", [each.format(out=tmp_path / "out") for each in arguments], monkeypatch)
    assert (code, err) == (2, "error: standard input is closed\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 中文 and 👩\u200d🚀\n\tnext", "plain, 中文 and 👩\u200d🚀\n\tnext"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("\x1b[2J\x9b2J\x7f", "\\x1b[2J\\x9b2J\\x7f"),
        ("over\rwritten\r\n", "over\\rwritten\n"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_controls_a_terminal_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.fixture
def hostile() -> Iterator[str]:
    def answer(request: Request) -> Reply:
        error = {"message": f"{HOSTILE}[/red] refused", "type": "BadRequestError", "code": 400}
        return Reply.of_json({"object": "error", **error, "error": error}, 400)

    with serve(answer) as server:
        yield server.base_url


def controls(text: str) -> list[str]:
    return [character for character in text if character not in "\n\t" and not character.isprintable()]


@pytest.mark.parametrize(
    "command",
    ["rerank {corpus}", "embed {corpus} -o {out}", "doctor", "doctor --json"],
)
def test_nothing_of_a_server_controls_the_terminal(
    corpus: Path, hostile: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN3_EMBEDDING_URL", hostile)
    monkeypatch.setenv("QWEN3_RERANKER_URL", hostile)
    arguments = command.format(corpus=corpus, out=corpus.parent / "out").split()
    if arguments[0] == "rerank":
        arguments.insert(1, QUERY)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "\\x1b]0;title" in "".join(done.output.split()) or arguments[0] == "doctor"
    assert controls(done.output) == []


def test_nothing_of_a_warning_or_of_an_argument_controls_the_terminal(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warns(*_: Any, **__: Any) -> list[Any]:
        logging.getLogger("aiohttp").warning("the server said %s", HOSTILE)
        return []

    monkeypatch.setattr(RerankClient, "rerank", warns)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    done = CliRunner().invoke(app, ["rerank", QUERY, str(corpus)])
    assert "the server said \\x1b]0;title" in done.stderr
    assert controls(done.output) == []
    assert controls(CliRunner().invoke(app, ["rerank", QUERY, str(corpus), HOSTILE]).output) == []


def test_json_keeps_what_it_escapes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\x1b[2J\x9b\u202eb", "utf-8")
    done = CliRunner().invoke(app, ["rerank", "moon", str(path), "--json"])
    assert controls(done.stdout) == []
    assert json.loads(done.stdout)["results"][0]["text"] == "a\x1b[2J\x9b\u202eb"
