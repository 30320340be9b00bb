"""`qwen3-vllm rerank` and `qwen3-vllm search`, as a user and as a script meet them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.bulk import embed_files
from qwen3_vllm.cli import _terminal, app
from tests.fake_vllm import FakeVLLM
from tests.faults import SocketServer, serve

QUERY = "为什么看不到月亮的背面？"
TEXTS = [
    "月球总以同一面朝向地球。",
    "Tides rise and fall twice a day.",
    "绿茶宜用八十度左右的水冲泡。",
    "A rainbow shows with the Sun behind you.",
    "高铁刹车时会把电送回电网。",
    "Save a cup of the cooking water of pasta.",
]


pytestmark = pytest.mark.usefixtures("both_servers")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"id": f"d{place}", "text": text}) for place, text in enumerate(TEXTS)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture
def index(corpus: Path, both_servers: None, tmp_path: Path) -> Path:
    embed_files([corpus], tmp_path / "index", part_rows=4)
    return tmp_path / "index"


def run(*arguments: Any, input: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)


def results(*arguments: Any, input: str | None = None) -> list[dict[str, Any]]:
    done = run(*arguments, "--json", input=input)
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return found


def ranking(texts: Sequence[str], **options: Any) -> list[str]:
    return [texts[each.index] for each in RerankClient().rerank(QUERY, texts, **options)]


# --- rerank --------------------------------------------------------------------------------------------


def test_rerank_ranks_as_the_client_does(corpus: Path) -> None:
    found = results("rerank", QUERY, corpus)
    expected = RerankClient().rerank(QUERY, TEXTS)
    assert [(r["text"], r["label"], r["was"]) for r in found] == [
        (TEXTS[each.index], each.label, each.index + 1) for each in expected
    ]
    assert [r["relevance_score"] for r in found] == [each.relevance_score for each in expected]
    assert [r["rank"] for r in found] == [1, 2, 3, 4, 5, 6]
    assert {r["id"] for r in found} == {f"d{place}" for place in range(6)}


def test_rerank_keeps_top_n(corpus: Path) -> None:
    assert [r["text"] for r in results("rerank", QUERY, corpus, "--top-n", 2)] == ranking(TEXTS)[:2]


def test_rerank_passes_the_instruction_on(corpus: Path) -> None:
    found = results("rerank", QUERY, corpus, "--instruction", "Find code")
    assert [r["text"] for r in found] == ranking(TEXTS, instruction="Find code")


@pytest.mark.parametrize(("name", "separator"), [("a.txt", "\n"), ("a.md", "\n\n"), ("a", "\n")])
def test_rerank_reads_files_by_their_ending(tmp_path: Path, name: str, separator: str) -> None:
    (tmp_path / name).write_text(separator.join(TEXTS), encoding="utf-8")
    assert [r["text"] for r in results("rerank", QUERY, tmp_path / name)] == ranking(TEXTS)


@pytest.mark.parametrize("as_jsonl", [False, True], ids=["lines", "jsonl"])
def test_rerank_reads_standard_input(as_jsonl: bool) -> None:
    lines = [json.dumps({"text": text}) if as_jsonl else text for text in TEXTS]
    assert [r["text"] for r in results("rerank", QUERY, "-", input="\n".join(lines))] == ranking(TEXTS)


def test_rerank_prints_a_table_of_one_line_a_text(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("one\nparagraph\n\n" + "long " * 100, encoding="utf-8")
    done = run("rerank", QUERY, file)
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert len(lines) == 4
    assert QUERY in lines[0]
    assert lines[1].split() == ["rank", "was", "P(yes)", "label", "text"]
    assert any("one paragraph" in line for line in lines[2:])


def test_rerank_shows_no_terminal_codes_of_a_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("red \x1b[31m and\x07 back \x9b2J", encoding="utf-8")
    assert "\x1b" not in run("rerank", QUERY, file).stdout
    assert "\x9b" not in run("rerank", QUERY, file).stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text"),
        (b" \n\n", "holds no text"),
        (b'{"text": 5}', "line 1 has no text in 'text' but int"),
        (b'{"text": "a"}\n{"body": "b"}', "line 2 has no field 'text'"),
        (b'{"text": "a"}\nnonsense', "line 2 is not JSON"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", "line 1 is not JSON"),
        ("中".encode("gb18030"), "not UTF-8"),
    ],
)
def test_rerank_refuses_files_it_cannot_use(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    done = run("rerank", QUERY, file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert "a.jsonl" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.txt"],
        ["."],
        ["-", "--top-n", "0"],
        ["-", "--base-url", "ftp://nowhere"],
        ["-", "--instruction", " "],
        [],
    ],
)
def test_rerank_exits_with_2_on_wrong_usage(arguments: list[str]) -> None:
    done = run("rerank", QUERY, *arguments, input="text")
    assert done.exit_code == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_rerank_exits_with_1_when_no_server_answers(corpus: Path) -> None:
    done = run("rerank", QUERY, corpus, "--base-url", "http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "qwen3-vllm serve reranker" in done.stderr


def test_windows_line_ends_and_byte_order_marks_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\r\n")
    assert sorted(r["text"] for r in results("rerank", QUERY, file)) == ["one", "two"]


def test_text_that_begins_with_a_brace_is_no_jsonl_by_force() -> None:
    (found,) = results("rerank", QUERY, "-", "--format", "text", input="{a}")

    assert (found["text"], found["id"]) == ("{a}", None)


def test_separators_of_unicode_do_not_end_a_line() -> None:
    (found,) = results("rerank", QUERY, "-", input='\ufeff{"text": "a\u2028b", "id": 7}')

    assert (found["text"], found["id"]) == ("a\u2028b", "7")


def test_rerank_reaches_into_objects() -> None:
    (found,) = results("rerank", QUERY, "-", "--text-field", "a.b", input='{"a": {"b": "inside"}}')

    assert found["text"] == "inside"


# --- search --------------------------------------------------------------------------------------------


def by_cosine() -> list[str]:
    client = EmbeddingClient()
    cosines = client.embed_documents(TEXTS) @ client.embed_queries([QUERY])[0]
    return [TEXTS[place] for place in np.argsort(-cosines)]


def test_search_finds_by_cosine(index: Path) -> None:
    found = results("search", QUERY, index, "--no-rerank", "--top-n", 6)
    assert [r["text"] for r in found] == by_cosine()
    assert [r["cosine"] for r in found] == sorted((r["cosine"] for r in found), reverse=True)


@pytest.mark.parametrize("top_k", [1, 3, 6, 20])
def test_search_reranks_the_candidates(index: Path, top_k: int) -> None:
    found = results("search", QUERY, index, "--top-k", top_k, "--top-n", 2)
    candidates = by_cosine()[:top_k]
    assert [r["text"] for r in found] == ranking(candidates, top_n=2)
    assert [candidates[r["was"] - 1] for r in found] == [r["text"] for r in found]


def test_search_uses_the_instruction_in_both_stages(
    index: Path, embedding_server: SocketServer, rerank_server: SocketServer
) -> None:
    results("search", QUERY, index, "--instruction", "Find code")
    assert f"Instruct: Find code\nQuery:{QUERY}" in embedding_server.bodies("/v1/embeddings")[-1]["input"]
    assert "<Instruct>: Find code\n" in rerank_server.bodies("/v1/score")[-1]["text_1"]


@pytest.mark.parametrize(("width", "start"), [(150, 5), (80, 5), (60, 1)])
@pytest.mark.parametrize("options", [[], ["--no-rerank"]])
def test_search_shows_whole_ids_and_the_texts_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], width: int, start: int
) -> None:
    monkeypatch.setattr(_terminal.out, "_width", width)
    monkeypatch.chdir(tmp_path)
    file = Path("deep" * 20, "a.txt")  # relative: an id's length, and so the table, is the same everywhere
    file.parent.mkdir()
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    embed_files([file], tmp_path / "index")
    done = run("search", QUERY, tmp_path / "index", "--top-n", 6, *options)
    _, head, *lines = done.stdout.splitlines()
    column = slice(head.index(" id ") + 1, head.index(" text"))
    shown = "".join(line[column].strip() for line in lines)  # long ids go over several lines
    for number in range(1, 7):
        assert f"a.txt:{number}" in shown
    assert TEXTS[0][:start] in "".join(line[column.stop :] for line in lines)


def test_search_shows_both_places(index: Path) -> None:
    done = run("search", QUERY, index, "--top-n", 6)
    (first,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["1"]]
    was = by_cosine().index(ranking(TEXTS)[0]) + 1
    assert first.split()[1] == str(was)
    assert (f"▲{was - 1}" in first) == (was > 1)


def test_search_finds_texts_that_have_moved(index: Path, corpus: Path, tmp_path: Path) -> None:
    moved = corpus.rename(tmp_path / "elsewhere.jsonl")
    refused = run("search", QUERY, index)
    assert refused.exit_code == 2
    assert "--texts" in refused.stderr
    assert [r["text"] for r in results("search", QUERY, index, "--texts", moved)][:1] == ranking(TEXTS)[:1]


def test_search_without_texts_shows_ids(index: Path, corpus: Path) -> None:
    corpus.unlink()
    found = results("search", QUERY, index, "--no-rerank", "--top-n", 1)
    assert [(r["id"], r["text"]) for r in found] == [(f"d{TEXTS.index(by_cosine()[0])}", None)]


def test_search_warns_of_texts_that_have_changed(index: Path, corpus: Path) -> None:
    corpus.write_text(corpus.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    done = run("search", QUERY, index, "--json")
    assert done.exit_code == 0
    assert "has changed" in done.stderr
    json.loads(done.stdout)


def test_search_takes_no_other_texts_for_the_right_ones(index: Path, corpus: Path) -> None:
    corpus.write_text('{"id": "other", "text": "x"}\n' * 6, encoding="utf-8")
    done = run("search", QUERY, index)
    assert done.exit_code == 2
    assert "is in the index, but no longer" in done.stderr


def test_search_finds_texts_in_several_files_without_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:3]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n\n".join(TEXTS[3:]), encoding="utf-8")
    embed_files([tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "index", part_rows=2)
    found = results("search", QUERY, tmp_path / "index", "--no-rerank", "--top-n", 6)
    assert [r["text"] for r in found] == by_cosine()


def test_search_finds_texts_in_the_encoding_that_they_were_embedded_in(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="gb18030")
    embed_files([tmp_path / "a.txt"], tmp_path / "index", encoding="gb18030")
    found = results("search", QUERY, tmp_path / "index", "--no-rerank", "--top-n", 6)
    assert [r["text"] for r in found] == by_cosine()


@pytest.fixture
def other_model(monkeypatch: pytest.MonkeyPatch, index: Path) -> Iterator[None]:
    with serve(FakeVLLM("embedding", seed="other")) as server:
        monkeypatch.setenv("QWEN3_EMBEDDING_URL", server.base_url)
        yield


@pytest.mark.usefixtures("other_model")
def test_search_refuses_another_model_than_the_indexs(index: Path) -> None:
    done = run("search", QUERY, index)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "another model" in done.stderr


@pytest.mark.parametrize("contents", [[], ["a.txt"]])
def test_search_refuses_a_folder_that_is_no_index(tmp_path: Path, contents: list[str]) -> None:
    for name in contents:
        (tmp_path / name).touch()
    done = run("search", QUERY, tmp_path)
    assert done.exit_code == 2
    assert "qwen3-vllm embed" in done.stderr


def test_search_names_a_part_that_is_damaged(index: Path) -> None:
    part = max(index.glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    done = run("search", QUERY, index)
    assert done.exit_code == 2
    assert f"{part.name} is damaged: remove it" in done.stderr


def test_search_refuses_an_empty_query(index: Path) -> None:
    assert run("search", " ", index).exit_code == 2


def test_search_says_that_an_index_is_not_complete(index: Path) -> None:
    max(index.glob("part-*.parquet")).unlink()
    done = run("search", QUERY, index, "--json")
    assert done.exit_code == 0
    assert "not complete" in done.stderr
    assert len(json.loads(done.stdout)["results"]) == 4


# --- both ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["rerank", "search"])
def test_help_has_an_example(command: str) -> None:
    assert (
        f"Example: qwen3-vllm {'embed' if command == 'search' else command}" in run(command, "--help").output
    )


def test_a_shell_completes_the_commands() -> None:
    completions = {"_QWEN3_VLLM_COMPLETE": "complete_bash", "COMP_WORDS": "qwen3-vllm se", "COMP_CWORD": "1"}
    program = [sys.executable, "-c", "from qwen3_vllm.cli import app; app(prog_name='qwen3-vllm')"]
    done = subprocess.run(program, env={**os.environ, **completions}, capture_output=True, text=True)
    assert {"serve", "search"} <= set(done.stdout.split())


def test_nothing_but_the_answer_is_printed_when_piped(corpus: Path) -> None:
    program = [sys.executable, "-c", "from qwen3_vllm.cli import app; app()", "rerank", QUERY, str(corpus)]
    done = subprocess.run([*program, "--json"], capture_output=True, text=True, env=dict(os.environ))
    assert done.stderr == ""
    assert len(json.loads(done.stdout)["results"]) == 6
