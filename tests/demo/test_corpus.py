"""The demo's reader of files."""

import json
from pathlib import Path

import pytest

from demo.corpus import PASSAGE_CHARACTERS, read_corpus, split_long

DEMO = Path(__file__).parent.parent.parent / "demo"


def read(tmp_path: Path, name: str, content: str) -> list[tuple[str, str]]:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return [(passage.id, passage.text) for passage in read_corpus(path)]


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

    pieces = split_long(paragraph)

    assert max(map(len, pieces)) <= PASSAGE_CHARACTERS
    assert "".join("".join(pieces).split()) == "".join(paragraph.split())


def test_long_paragraphs_are_cut_between_sentences() -> None:
    pieces = split_long("圆周率约为 3.14，这是一个句子。" * 100)

    assert all(piece.endswith("。") for piece in pieces)


def test_labelled_queries_name_passages_of_the_corpus() -> None:
    passages = {passage.id for passage in read_corpus(DEMO / "corpus.jsonl")}
    queries = [json.loads(line) for line in (DEMO / "queries.jsonl").read_text("utf-8").splitlines()]

    assert queries and all(set(query["relevant"]) <= passages for query in queries)
