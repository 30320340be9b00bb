"""The demo's reader of files; scripts are no package, so it is loaded by its path."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_spec = importlib.util.spec_from_file_location("demo_corpus", ROOT / "scripts" / "demo_corpus.py")
assert _spec is not None and _spec.loader is not None
demo_corpus = importlib.util.module_from_spec(_spec)
sys.modules["demo_corpus"] = demo_corpus
_spec.loader.exec_module(demo_corpus)


def read(tmp_path: Path, name: str, content: str) -> list[tuple[str, str]]:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return [(passage.id, passage.text) for passage in demo_corpus.read_corpus(path)]


def test_paragraphs_of_a_text_become_passages(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "\ufeff一\n二\n\n \n\nthree\r\n") == [("1", "一\n二"), ("2", "three")]


def test_headings_go_with_the_paragraph_after_them(tmp_path: Path) -> None:
    markdown = "# Tea\n\n## Water\n\nEighty degrees.\n\n# Notes\n"

    assert read(tmp_path, "a.md", markdown) == [("1", "Tea\nWater\nEighty degrees."), ("2", "Notes")]


def test_a_line_of_jsonl_is_a_passage_under_its_own_id(tmp_path: Path) -> None:
    lines = [json.dumps({"id": 7, "text": "a\u2028b"}, ensure_ascii=False), "", json.dumps({"text": "c"})]

    assert read(tmp_path, "a.jsonl", "\n".join(lines)) == [("7", "a\u2028b"), ("3", "c")]


@pytest.mark.parametrize("sentence", ["这是一个句子。", "This is a sentence. ", "no end at all"])
def test_long_paragraphs_are_cut_without_losing_text(sentence: str) -> None:
    paragraph = (sentence * 300).strip()

    pieces = demo_corpus.split_long(paragraph)

    assert max(map(len, pieces)) <= demo_corpus.PASSAGE_CHARACTERS
    assert "".join("".join(pieces).split()) == "".join(paragraph.split())


def test_long_paragraphs_are_cut_between_sentences() -> None:
    pieces = demo_corpus.split_long("圆周率约为 3.14，这是一个句子。" * 100)

    assert all(piece.endswith("。") for piece in pieces)


def test_labelled_queries_name_passages_of_the_corpus() -> None:
    examples = ROOT / "examples"
    passages = {passage.id for passage in demo_corpus.read_corpus(examples / "corpus.jsonl")}
    queries = [json.loads(line) for line in (examples / "queries.jsonl").read_text("utf-8").splitlines()]

    assert queries and all(set(query["relevant"]) <= passages for query in queries)
