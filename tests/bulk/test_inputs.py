"""Reading documents from files: formats, ids, numbering, and rows that hold no document."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen3_vllm._core.text_files.rows import Row
from qwen3_vllm._core.text_files.sources import find_sources
from qwen3_vllm.bulk.parts import Fields
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.bulk.scan import scan
from qwen3_vllm.errors import ConfigurationError, InputError

ANY_ID = Fields()


def read(path: Path, *, part_rows: int = 1000, fields: Fields = ANY_ID, **options: object) -> list[Row]:
    """All rows of a file, part by part, each part read by a reader of its own."""
    (source,) = find_sources([path], **options)  # type: ignore[arg-type]
    parts = scan(0, source, part_rows, fields).parts
    return [row for part in parts for row in Reader(source, fields).rows(part) if row is not None]


def documents(rows: list[Row]) -> list[tuple[str, object]]:
    return [(row.id, row.text) for row in rows if row.problem is None]


def problems(rows: list[Row]) -> list[tuple[int, str | None]]:
    return [(row.number, row.problem) for row in rows if row.problem is not None]


class TestJsonl:
    def test_rows_are_numbered_by_line_and_blank_lines_hold_no_document(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(
            b'\xef\xbb\xbf{"id": "x", "text": "one"}\r\n\n{"text": "two\\u2028"}\n  \n{"text": ""}'
        )
        rows = read(path)
        assert [row.number for row in rows] == [1, 3, 5]
        assert documents(rows) == [("x", "one"), (f"{path}:3", "two\u2028"), (f"{path}:5", "")]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b"{", "is not JSON"),
            (b'{"text": "\xff"}', "is not UTF-8"),
            (b'{"text": "\\ud800"}', "is not JSON: no low surrogate"),
            (b"[1]", "is not a JSON object but list"),
            (b'{"body": "b"}', "has no field 'text'"),
            (b'{"text": "t", "id": [1]}', "has an id that is neither a string nor a number but list"),
            (b'{"text": "t", "id": 123456789012345678901234567890}', "has an id that is not an exact number"),
        ],
    )
    def test_a_bad_row_is_reported_and_the_next_one_read(
        self, tmp_path: Path, line: bytes, problem: str
    ) -> None:
        path = tmp_path / "a.jsonl"
        path.write_bytes(line + b'\n{"id": 7, "text": "good"}\n')
        rows = read(path)
        ((number, found),) = problems(rows)
        assert number == 1
        assert found is not None and found.startswith(problem)
        assert documents(rows) == [("7", "good")]

    def test_other_fields_can_be_named(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"key": 3, "body": "b"}\n')
        assert documents(read(path, fields=Fields("body", "key"))) == [("3", "b")]


class TestCsv:
    def test_quotes_newlines_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes('\ufeffid,text\r\n1,"a ""b"",\nc"\r\n,没有\r\n'.encode())
        assert documents(read(path)) == [("1", 'a "b",\nc'), (f"{path}:2", "没有")]

    def test_a_field_may_be_longer_than_python_allows_by_default(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("id,text\n1," + "x" * 200_000)
        assert documents(read(path)) == [("1", "x" * 200_000)]

    def test_rows_of_another_length_or_encoding_are_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(b"id,text\n1\n2,\xff\n3,ok\n")
        rows = read(path)
        assert [number for number, _ in problems(rows)] == [1, 2]
        assert documents(rows) == [("3", "ok")]

    def test_a_missing_column_is_refused_naming_those_there(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("id,body\n1,x\n")
        with pytest.raises(
            ConfigurationError, match=r"no column 'text', but has id, body: give --text-field"
        ):
            read(path)

    def test_tabs(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tsv"
        path.write_text("id\ttext\n1\ta, b\n")
        assert documents(read(path)) == [("1", "a, b")]


class TestText:
    def test_each_line_is_a_document_as_it_stands(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("  one\r\n\n第二\n")
        assert documents(read(path)) == [(f"{path}:1", "  one"), (f"{path}:3", "第二")]

    def test_each_paragraph_of_markdown_is_a_document(self, tmp_path: Path) -> None:
        path = tmp_path / "a.md"
        path.write_text("# Title\nline\n\n\nnext\n")
        assert documents(read(path)) == [(f"{path}:1", "# Title\nline"), (f"{path}:2", "next")]

    def test_bytes_that_are_not_utf8_are_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(b"\xff\nok\n")
        assert problems(read(path)) == [(1, "is not UTF-8, or has lone surrogates")]


class TestParquet:
    def test_parts_need_not_meet_row_groups(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"x": range(100), "text": [f"t{n}" for n in range(100)], "id": range(100)})
        pq.write_table(table, path, row_group_size=7)
        rows = read(path, part_rows=13)
        assert documents(rows) == [(str(n), f"t{n}") for n in range(100)]
        assert [row.number for row in rows] == list(range(1, 101))

    def test_missing_ids_are_made_of_input_and_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": ["a", "b"]}), path)
        assert [row.id for row in read(path)] == [f"{path}:1", f"{path}:2"]

    def test_a_file_that_is_something_else_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        path.write_text("no Parquet at all")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(path)


class TestParts:
    @pytest.mark.parametrize("part_rows", [1, 2, 3, 7, 1000])
    @pytest.mark.parametrize("ending", ["jsonl", "csv", "txt", "md", "jsonl.gz"])
    def test_give_the_same_rows_however_long_they_are(
        self, tmp_path: Path, ending: str, part_rows: int
    ) -> None:
        texts = ["ein", "zwei\nthree", "", "四", "five"]
        content = {
            "jsonl": "\n".join(json.dumps({"text": text}) for text in texts),
            "csv": "text\n" + "".join(f'"{text}"\r\n' for text in texts),
            "txt": "\n".join(texts),
            "md": "\n\n".join(texts),
        }[ending.removesuffix(".gz")].encode()
        path = tmp_path / f"a.{ending}"
        path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
        assert read(path, part_rows=part_rows) == read(path, part_rows=10**6)

    def test_following_parts_come_from_one_reading(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("".join(f"line {n}\n" for n in range(10)))
        (source,) = find_sources([path])
        parts = scan(0, source, 3, Fields()).parts
        reader = Reader(source, Fields())
        order = [parts[0], parts[1], parts[3], parts[0]]
        got = [[row.number for row in reader.rows(part) if row] for part in order]
        assert got == [[1, 2, 3], [4, 5, 6], [10], [1, 2, 3]]

    def test_a_file_that_became_shorter_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("one\ntwo\n")
        (source,) = find_sources([path])
        (part,) = scan(0, source, 10, Fields()).parts
        path.write_text("one\n")
        with pytest.raises(InputError, match="changed while it was read"):
            list(Reader(source, Fields()).rows(part))

    def test_a_gzip_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt.gz"
        path.write_bytes(gzip.compress(b"line\n" * 1000)[:-20])
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(path)


class TestFinding:
    def test_globs_are_sorted_and_no_file_comes_twice(self, tmp_path: Path) -> None:
        for name in ("b.txt", "a.txt", "c.jsonl"):
            (tmp_path / name).write_text("x")
        found = find_sources([tmp_path / "b.txt", f"{tmp_path}/*.txt", f"{tmp_path}/**/*.jsonl"])
        assert [source.path.name for source in found] == ["b.txt", "a.txt", "c.jsonl"]

    def test_a_file_whose_name_looks_like_a_glob_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "a[1].txt").write_text("x")
        (source,) = find_sources([tmp_path / "a[1].txt"])
        assert source.path.name == "a[1].txt"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("missing.jsonl", "is not there"),
            ("*.jsonl", "no file matches"),
            ("", "is a folder: give files, or a glob such as"),
            ("a.xyz", "cannot tell the format from .xyz; give --format"),
            ("a.parquet.gz", "unpack it; Parquet is compressed inside"),
        ],
    )
    def test_what_cannot_be_taken_is_named(self, tmp_path: Path, name: str, message: str) -> None:
        (tmp_path / "a.xyz").write_text("x")
        (tmp_path / "a.parquet.gz").write_bytes(b"")
        with pytest.raises(ConfigurationError, match=message):
            find_sources([f"{tmp_path}/{name}"])

    def test_no_inputs_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no inputs"):
            find_sources([])

    def test_two_inputs_of_one_name_are_refused(self, tmp_path: Path) -> None:
        """A name may hold bytes that are not UTF-8, which are shown as another name may be spelled."""
        for name in (b"caf\xe9.txt", b"caf\\xe9.txt"):
            (tmp_path / os.fsdecode(name)).write_text("x")
        with pytest.raises(ConfigurationError, match="two inputs would be called"):
            find_sources([f"{tmp_path}/*.txt"])

    def test_a_format_given_holds_whatever_the_ending(self, tmp_path: Path) -> None:
        (tmp_path / "a.xyz").write_text("text\nx\n")
        assert documents(read(tmp_path / "a.xyz", format="csv")) == [(f"{tmp_path}/a.xyz:1", "x")]
