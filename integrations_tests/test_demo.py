"""The demo program, run as a user runs it."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from demo import __main__ as program

from .conftest import RunningServer

ROOT = Path(__file__).parent.parent


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program that demo.sh starts once everything is installed."""
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_shows_that_reranking_helps() -> None:
    """The shipped corpus and questions: nDCG rises where question and answer share a language."""
    done = demo()

    assert done.returncode == 0, done.stdout + done.stderr
    before, after = re.findall(
        r"in the language of their answers: (0\.\d\d) .*, (0\.\d\d) reranked", done.stdout
    )[0]
    assert float(after) > float(before) + 0.1


def test_reranks_the_users_file(
    demo_servers: list[RunningServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    notes = tmp_path / "笔记.md"
    notes.write_text("# 茶\n\n绿茶宜用八十度的水。\n\n# Moon\n\nThe Moon shows one face.\n", encoding="utf-8")
    running = {
        role: SimpleNamespace(name=role, base_url=server.base_url, log_path=server.log_path)
        for role, server in zip(("embedding", "reranker"), demo_servers, strict=True)
    }
    # With servers that run already: the test above boots the demo's own.
    monkeypatch.setattr(program, "new_server", lambda role, model: running[role])
    monkeypatch.setattr(program, "running", lambda servers, **options: nullcontext())

    program.demonstrate(*program.choose_texts([str(notes), "泡绿茶用多热的水？"]))

    shown = capsys.readouterr().out
    assert "Embedded 2 of 2 passages" in shown
    assert "茶 绿茶宜用八十度的水。" in shown
    assert "Moon The Moon shows one face." in shown


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b" \n\n", "holds no text"),
        ("gbk.txt", "汉字".encode("gb18030"), "not UTF-8"),
        ("page.html", b"<p>text</p>", "give a .jsonl, .txt, .md file"),
        ("broken.jsonl", b'{"text": "fine"}\n\n{"text": \n', "line 3 is not JSON"),
        ("wordless.jsonl", b'{"text": "fine"}\n{"title": "x"}\n', "line 2 has no field 'text'"),
    ],
)
def test_refuses_a_file_of_no_use_before_any_server_starts(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    done = demo(str(path), "query")

    assert done.returncode == 2
    assert message in " ".join(done.stdout.split())
    assert "Starting" not in done.stdout


def test_names_the_folder_that_holds_no_models(tmp_path: Path) -> None:
    done = demo(QWEN3_MODELS=str(tmp_path))

    assert done.returncode == 2
    assert str(tmp_path) in done.stdout.replace("\n", "")
