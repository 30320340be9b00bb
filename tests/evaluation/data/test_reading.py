"""Data: each layout is read, with the line of what is wrong."""

import gzip
import json
from pathlib import Path

import pytest

from qwen3_vllm.errors import ConfigurationError, InputError
from qwen3_vllm.evaluation import Dataset, read_dataset
from qwen3_vllm.evaluation.run import evaluate


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def json_lines(*records: dict[str, object]) -> str:
    return "\n".join(json.dumps(each, ensure_ascii=False) for each in records)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    write(
        tmp_path / "corpus.jsonl",
        json_lines(
            {"_id": "d1", "title": "标题", "text": "正文"}, {"_id": "d2", "title": "", "text": "Second."}
        ),
    )
    write(
        tmp_path / "queries.jsonl",
        json_lines({"_id": "q1", "text": "first?"}, {"_id": "q2", "text": "not judged?"}),
    )
    write(tmp_path / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return tmp_path


def test_beirs_layout(beir: Path) -> None:
    dataset = read_dataset(beir)
    assert (dataset.document_ids, dataset.texts) == (["d1", "d2"], ["标题 正文", "Second."])
    assert (dataset.queries, dataset.judgements) == ({"q1": "first?"}, {"q1": {"d1": 1}})


def test_files_may_be_gzipped_and_tables(beir: Path) -> None:
    packed = gzip.compress(b"_id\ttext\nd1\tFirst.\nd2\tSecond.\n")
    (beir / "corpus.jsonl").unlink()
    (beir / "corpus.tsv.gz").write_bytes(packed)
    assert read_dataset(beir).texts == ["First.", "Second."]


def test_other_judgements_and_queries_may_be_given(beir: Path) -> None:
    queries = write(beir / "dev.csv", "\ufeffid,text\n7,seven?\n")
    judgements = write(beir / "qrels" / "dev.tsv", "7\td2\t1\n")
    dataset = read_dataset(beir, queries=queries, judgements=judgements)
    assert (dataset.queries, dataset.judgements) == ({"7": "seven?"}, {"7": {"d2": 1}})


def test_questions_and_passages(tmp_path: Path) -> None:
    pairs = write(
        tmp_path / "pairs.csv", 'question,passage\nWho?,Me.\nWhat?,"This, or\nthat."\nWho?,You.\nWho?,Me.\n'
    )
    dataset = read_dataset(pairs)
    assert dataset.texts == ["Me.", "This, or\nthat.", "You."]
    assert dataset.queries == {"q1": "Who?", "q2": "What?"}
    assert dataset.judgements == {"q1": {"p1": 1, "p3": 1}, "q2": {"p2": 1}}
    assert dataset.warnings == [f"1 repeated pair in {pairs}: each pair counts once"]


def test_questions_and_passages_that_are_labelled(tmp_path: Path) -> None:
    lines = json_lines(
        {"question": "Who?", "passage": "Me.", "relevant": 2},
        {"question": "Who?", "passage": "Bananas.", "relevant": "no"},
        {"question": "Who?", "passage": "Unlabelled.", "relevant": None},
    )
    dataset = read_dataset(write(tmp_path / "pairs.jsonl", lines))
    assert dataset.judgements == {"q1": {"p1": 2, "p2": 0}}
    assert len(dataset.document_ids) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("question,answer\nWho?,Me.\n", r"line 2: has no text in 'passage'; its fields are question, answer"),
        ("question,passage\nWho?\n", "line 2: has 1 fields, and the header 2"),
        ("question,passage\n ,Me.\n", "line 2: the question is empty"),
        ("question,passage,relevant\nWho?,Me.,1\nWho?,Me.,0\n", "line 3: .* were judged 1 before"),
        ('question,passage\nWho?,"Me.\nWhat?,That.\n', "line 2: a quote that is opened in it is not closed"),
        ("question,passage\n", "holds no question"),
        ("", "holds no question"),
    ],
)
def test_pairs_that_cannot_be_read_are_said_with_their_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_dataset(write(tmp_path / "pairs.csv", content))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}',
            "line 2: the document id 'd1'",
        ),
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\nnot JSON', "line 2: not JSON"),
        ("corpus.jsonl", '["d1"]', "line 1: not a JSON object"),
        (
            "corpus.jsonl",
            '{"_id": "d1", "body": "a"}',
            "line 1: has no text in 'text'; its fields are _id, body",
        ),
        ("corpus.jsonl", '{"text": "a"}', "line 1: has no id; looked for '_id' and 'id'"),
        ("corpus.jsonl", "", "the corpus has no document"),
        ("queries.jsonl", '{"_id": "q1", "text": " "}', "it has no query"),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "a"}',
            "line 2: the query id 'q1'",
        ),
        ("queries.jsonl", "", "it has no query"),
    ],
)
def test_a_folder_that_cannot_be_read_is_said_with_the_line(
    beir: Path, name: str, content: str, said: str
) -> None:
    write(beir / name, content)
    with pytest.raises(InputError, match=said):
        read_dataset(beir)


def test_text_that_is_not_utf8_is_said(beir: Path) -> None:
    (beir / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8"):
        read_dataset(beir)


def test_empty_queries_are_left_out_and_counted(beir: Path) -> None:
    write(beir / "queries.jsonl", '{"_id": "q1", "text": "first?"}\n{"_id": "q2", "text": " "}')
    dataset = read_dataset(beir)
    assert dataset.queries == {"q1": "first?"}
    assert dataset.warnings == ["left out: 1 empty query"]


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl"])
def test_a_folder_without_a_file_says_which(beir: Path, missing: str) -> None:
    (beir / missing).unlink()
    with pytest.raises(InputError, match=missing):
        read_dataset(beir)


def test_judgements_of_another_split_are_not_taken_by_chance(beir: Path) -> None:
    (beir / "qrels" / "test.tsv").rename(beir / "qrels" / "train.tsv")
    with pytest.raises(InputError, match=r"no test\.tsv, but train\.tsv: give the file"):
        read_dataset(beir)


def test_without_judgements_there_is_nothing_to_measure(beir: Path) -> None:
    (beir / "qrels" / "test.tsv").unlink()
    assert read_dataset(beir).judgements == {}
    with pytest.raises(InputError, match="--sample"):
        evaluate(beir)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not there"):
        read_dataset(tmp_path / "nowhere")


def test_a_dataset_in_memory_is_checked_too() -> None:
    dataset = Dataset.of({"d": "text"}, {"q": "query"}, {"q": {"other": 1}})
    with pytest.raises(InputError, match="no judged document is in the corpus"):
        evaluate(dataset)
    with pytest.raises(ConfigurationError, match="a Dataset has its own"):
        evaluate(dataset, queries="file.tsv")
