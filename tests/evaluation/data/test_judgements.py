"""Judgements: every layout is read, and what is wrong with them is said, with the line or a count."""

from pathlib import Path

import pytest

from qwen3_vllm.errors import InputError
from qwen3_vllm.evaluation.data.judgements import check_judgements, read_judgements

QUERIES = {"q1": "one?", "q2": "two?"}
DOCUMENTS = ["d1", "d2"]


def file(tmp_path: Path, content: str, name: str = "test.tsv") -> Path:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.tsv", "query-id\tcorpus-id\tscore\nq 1\td1\t1\nq 1\td2\t0\nq2\td1\t2\n"),
        ("test.tsv", "q 1\td1\t1\r\nq 1\td2\t0\r\n\r\nq2\td1\t2"),
        ("qrels.txt", "q 1\t0\td1\t1\nq 1\t0\td2\t0\nq2\t0\td1\t2\n"),
        (
            "sheet.csv",
            "query_id,query,document_id,document,relevant\n"
            'q 1,"one, or\ntwo?",d1,a text,Yes\nq 1,one?,d2,,no\nq2,two?,d1,,2.0\n',
        ),
        ("sheet.csv", "query_id;document_id;relevant\nq 1;d1;1\nq 1;d2;0\nq2;d1;2\n"),
    ],
    ids=["beir", "no-header", "trec", "sheet", "sheet-with-semicolons"],
)
def test_layouts_mean_the_same(tmp_path: Path, name: str, content: str) -> None:
    judged = read_judgements(file(tmp_path, content, name))
    assert judged.judgements == {"q 1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}
    assert judged.warnings == []


def test_trec_may_be_separated_by_spaces(tmp_path: Path) -> None:
    assert read_judgements(file(tmp_path, "q1 0 d1 1\n")).judgements == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("q1\td1\t1\nq1\td1\t0\n", r"line 2: query 'q1' and document 'd1' were judged 1 before, and 0 here"),
        ("q1\td1\t1\nq1\td2\thigh\n", "line 2: relevance must be an integer, not 'high'"),
        ("q1\td1\t1\nq1\td2\t0.5\n", "line 2: relevance must be an integer"),
        ("q1\td1\t1\nq1\td2\n", "line 2: has 2 columns"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgement"),
        ("", "holds no judgement"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_judgements(file(tmp_path, content))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_judgements(tmp_path / "nowhere.tsv")


def test_a_label_that_is_none_is_said_with_its_line(tmp_path: Path) -> None:
    sheet = "query_id,document_id,relevant\nq1,d1,yes\nq1,d2,perhaps\n"
    with pytest.raises(
        InputError, match=r"line 3: 'relevant' must be yes, no or an integer .* not 'perhaps'"
    ):
        read_judgements(file(tmp_path, sheet, "sheet.csv"))


def test_repeated_judgements_count_once_and_are_counted(tmp_path: Path) -> None:
    judged = read_judgements(file(tmp_path, "q1\td1\t1\nq1\td1\t1\nq1\td1\t1\n"))
    assert judged.judgements == {"q1": {"d1": 1}}
    assert [warning.partition(" in ")[0] for warning in judged.warnings] == ["2 repeated judgements"]


def test_rows_of_a_sheet_without_a_label_are_counted(tmp_path: Path) -> None:
    sheet = "query_id,document_id,relevant\nq1,d1,yes\nq1,d2,\nq2,d1, \n"
    judged = read_judgements(file(tmp_path, sheet, "sheet.csv"))
    assert judged.judgements == {"q1": {"d1": 1}}
    assert judged.warnings[0].startswith("2 rows")


@pytest.mark.parametrize(
    ("judgements", "said"),
    [
        ({"q1": {"x": 1}}, "no judged document is in the corpus"),
        ({"x": {"d1": 1}}, "no judged query is among the queries"),
        ({"q1": {"d1": 0}, "q2": {"d2": -1}}, "no query has a relevant document"),
    ],
)
def test_judgements_of_other_data_are_refused(judgements: dict[str, dict[str, int]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_judgements(judgements, DOCUMENTS, QUERIES)


def test_what_cannot_be_measured_is_left_out_and_counted() -> None:
    judged = check_judgements(
        {"q1": {"d1": 1, "gone": 1}, "q2": {"d1": 0}, "q3": {"d2": 1}, "q4": {"d2": 1}}, DOCUMENTS, QUERIES
    )

    assert judged.judgements == {"q1": {"d1": 1, "gone": 1}}
    unknown, missing, hopeless = judged.warnings
    assert unknown == "left out: 2 judged queries without a text: 'q3', 'q4'"
    assert missing == "not in the corpus, and counted as not found: 1 relevant document: 'gone'"
    assert hopeless == "left out: 1 query without a relevant document: 'q2'"
