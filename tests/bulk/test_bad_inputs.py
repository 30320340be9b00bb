"""Inputs that are damaged, strange or in another encoding: a row with a reason, or a refusal at the start."""

import codecs
import gzip
import json
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen3_vllm._core.text_files.sources import find_sources, known_encoding
from qwen3_vllm._core.text_files.whole import read_texts
from qwen3_vllm.bulk.parts import Fields
from qwen3_vllm.bulk.rows import Reader
from qwen3_vllm.bulk.scan import scan
from qwen3_vllm.errors import ConfigurationError, InputError
from tests.bulk.test_inputs import documents, problems, read


def refusal(path: Path, fields: Fields | None = None, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read(path, fields=fields or Fields(), **options)
    return str(refused.value)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class TestParquet:
    @staticmethod
    def raw_strings(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
        plain = pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary())
        return pa.Array.from_buffers(kind, len(plain), plain.buffers())

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()], ids=str)
    def test_a_row_that_is_not_utf8_takes_no_other_with_it(self, tmp_path: Path, kind: pa.DataType) -> None:
        path = tmp_path / "a.parquet"
        texts = self.raw_strings([b"one", b"\xff\xfe", "三".encode()], kind)
        ids = self.raw_strings([b"a", b"b", b"\xff"], kind)
        pq.write_table(pa.table({"text": texts, "id": ids, "key": ["x", "y", "z"]}), path)
        rows = read(path, fields=Fields("text", "key"))
        assert documents(rows) == [("x", "one"), ("z", "三")]
        assert problems(rows) == [(2, "is not UTF-8, or has lone surrogates")]
        assert problems(read(path))[1] == (3, "has an id that is not UTF-8")

    @pytest.mark.parametrize("twice", ["text", "id"])
    def test_two_columns_of_a_name_that_is_asked_for_are_refused(self, tmp_path: Path, twice: str) -> None:
        path = tmp_path / "a.parquet"
        column = pa.array(["a"])
        pq.write_table(pa.Table.from_arrays([column] * 3, ["text", "id", twice]), path)
        assert f"2 columns called '{twice}'" in refusal(path)

    def test_two_columns_of_another_name_do_not_matter(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 4, ["x", "text", "x", "id"]), path)
        assert documents(read(path)) == [("a", "a")]

    @pytest.mark.parametrize(
        "values", [[["a"]], [1], [datetime(2026, 1, 1)], [{"a": "b"}]], ids=["list", "int", "time", "struct"]
    )
    def test_a_column_that_holds_no_text_is_refused_at_the_start(
        self, tmp_path: Path, values: list[object]
    ) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": values}), path)
        assert "column 'text' holds" in refusal(path)

    @pytest.mark.parametrize(
        ("values", "ids"),
        [
            (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
            (pa.array([Decimal("12345678901234567890"), Decimal(2)]), ["12345678901234567890", "2"]),
            (
                pa.array([1, 2], pa.timestamp("ns")),
                ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000000002"],
            ),
            (pa.array([None, b"x"]), ["{path}:1", "x"]),
        ],
        ids=["dictionary", "decimal", "nanoseconds", "binary"],
    )
    def test_ids_of_many_types_are_written_without_loss(
        self, tmp_path: Path, values: pa.Array, ids: list[str]
    ) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": pa.array(["x", "y"]).dictionary_encode(), "id": values}), path)
        assert documents(read(path)) == [
            (id.format(path=path), text) for id, text in zip(ids, "xy", strict=True)
        ]

    def test_dots_reach_into_structs(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"doc": [{"text": "a", "meta": {"id": 7}}, {"text": "b", "meta": None}, None]})
        pq.write_table(table, path)
        rows = read(path, fields=Fields("doc.text", "doc.meta.id"))
        assert [(row.id, row.text) for row in rows] == [("7", "a"), (f"{path}:2", "b"), (f"{path}:3", None)]

    @pytest.mark.parametrize("part_rows", [7, 1000])
    def test_a_damaged_page_costs_the_rows_of_its_row_group_only(
        self, tmp_path: Path, part_rows: int
    ) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"text": [f"text {n}" for n in range(30)]})
        pq.write_table(table, path, row_group_size=10, use_dictionary=False, compression="zstd")
        column = pq.read_metadata(path).row_group(1).column(0)
        content = bytearray(path.read_bytes())
        start = column.data_page_offset
        content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
        path.write_bytes(content)
        rows = read(path, part_rows=part_rows)
        assert [text for _, text in documents(rows)] == [f"text {n}" for n in range(30) if n // 10 != 1]
        assert [number for number, _ in problems(rows)] == list(range(11, 21))
        assert all(problem.startswith("cannot be read: ") for _, problem in problems(rows) if problem)

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 50 + b"\xff\0\0\0PAR1"])
    def test_a_wrong_footer_is_refused(self, tmp_path: Path, content: bytes) -> None:
        assert "cannot be read" in refusal(write(tmp_path / "a.parquet", content))

    def test_no_row_group_is_no_row(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.ParquetWriter(path, pa.schema([("text", pa.string())])).close()
        assert read(path) == []


class TestByteOrderMark:
    @pytest.mark.parametrize("header", ['"id","text"', 'id,"text"', "\r\n \n id ,text "])
    def test_stands_before_any_header(self, tmp_path: Path, header: str) -> None:
        path = write(tmp_path / "a.csv", codecs.BOM_UTF8 + f'{header}\r\n7,"x"\r\n'.encode())
        assert documents(read(path)) == [("7", "x")]

    @pytest.mark.parametrize(("ending", "number"), [("md", 1), ("txt", 3), ("jsonl", 3)])
    def test_before_blank_lines_is_none_of_them(self, tmp_path: Path, ending: str, number: int) -> None:
        text = '{"text": "x"}'
        path = write(tmp_path / f"a.{ending}", codecs.BOM_UTF8 + f"\n\n{text}\n\n".encode())
        assert [row.number for row in read(path)] == [number]


class TestQuotes:
    @pytest.mark.parametrize("part_rows", [1, 3, 1000])
    @pytest.mark.parametrize(
        "row",
        [b'2,"never closed', b'2,"closed by the next one', b'2,"with ""quotes"" in it'],
    )
    def test_one_that_is_not_closed_costs_its_own_row_only(
        self, tmp_path: Path, row: bytes, part_rows: int
    ) -> None:
        path = write(tmp_path / "a.csv", b'id,text\n1,"a\nb"\n' + row + b'\n3,"c"\n4,d\n5,"e"\n')
        rows = read(path, part_rows=part_rows)
        assert documents(rows) == [("1", "a\nb"), ("3", "c"), ("4", "d"), ("5", "e")]
        ((number, problem),) = problems(rows)
        assert number == 2
        assert problem == f"is not CSV: a quote that is opened in it is not closed: {row.decode()}"

    def test_one_on_the_last_line_and_in_the_header(self, tmp_path: Path) -> None:
        rows = read(write(tmp_path / "a.csv", b'id,text\n1,a\n2,b\n3,"c'))
        assert [number for number, _ in problems(rows)] == [3]
        assert "is not closed" in refusal(write(tmp_path / "b.csv", b'id,"text\n1,a\n'))

    def test_no_record_grows_without_bound(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qwen3_vllm._core.text_files.csv_records._RECORD_BYTES", 1000)
        path = write(
            tmp_path / "a.csv",
            b'text\n"open\n' + b"line\n" * 500 + b'"a',
        )
        rows = read(path)
        assert [number for number, _ in problems(rows)] == [1, 502]
        assert len(documents(rows)) == 500

    def test_a_name_that_is_there_twice_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", b"text,text,x,x\na,b,c,d\n")
        assert "2 columns called 'text'" in refusal(path)
        assert documents(read(write(path, b"text,x,x,\na,b,c,d\n")))[0][1] == "a"


CONTENT = {
    "jsonl": '{"id": "甲", "text": "月亮"}\n\n{"id": "乙", "text": "café"}\n',
    "csv": "id,text\n甲,月亮\n乙,café\n",
    "txt": "月亮\n\ncafé\n",
    "md": "\n月亮\n\ncafé\n",
}


class TestEncodings:
    @pytest.mark.parametrize("part_rows", [1, 1000])
    @pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-be", "utf-32", "iso2022_jp_2"])
    @pytest.mark.parametrize("ending", ["jsonl", "csv", "txt", "md", "csv.gz"])
    def test_give_the_same_rows(self, tmp_path: Path, ending: str, encoding: str, part_rows: int) -> None:
        content = CONTENT[ending.removesuffix(".gz")]
        path = tmp_path / f"a.{ending}"
        if encoding == "utf-16-be":
            content = "\ufeff" + content
        for codec in (encoding, "utf-8"):
            raw = content.removeprefix("\ufeff").encode() if codec == "utf-8" else content.encode(codec)
            path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
            if codec == encoding:
                found = read(path, part_rows=part_rows, encoding=known_encoding(encoding))
        assert found == read(path)
        assert [text for _, text in documents(found)] == ["月亮", "café"]

    def test_bytes_that_an_encoding_lacks_cost_their_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "月亮\n".encode("gbk") + b"\xff\xff\n" + "茶\n".encode("gbk"))
        rows = read(path, encoding="gbk")
        assert [text for _, text in documents(rows)] == ["月亮", "茶"]
        assert problems(rows) == [(2, "is not gbk, or has lone surrogates")]

    @pytest.mark.parametrize("encoding", ["gbk", "cp1252", "utf-16", "utf-16-le", "utf-32"])
    def test_an_input_that_is_not_utf8_is_refused_at_the_start(self, tmp_path: Path, encoding: str) -> None:
        text = "text\n" + ("café\n" if encoding == "cp1252" else "月亮\n") * 20 + "plain\n" * 25
        path = write(tmp_path / "a.csv", text.encode(encoding))
        assert "--encoding" in refusal(path)
        assert len(read(path, encoding=encoding)) == 45

    @pytest.mark.parametrize(
        ("mark", "encoding"),
        [("utf-8-sig", "gbk"), ("utf-16", "gbk"), ("utf-32", "utf-16"), ("utf-16", "utf-16-be")],
    )
    def test_a_byte_order_mark_of_another_one_is_refused(
        self, tmp_path: Path, mark: str, encoding: str
    ) -> None:
        path = write(tmp_path / "a.txt", "text\n".encode(mark))
        assert f"--encoding {mark.removesuffix('-sig')}" in refusal(path, encoding=encoding)

    def test_a_wrong_encoding_is_refused_at_the_start(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "café\n".encode("cp1252") * 20)
        assert "is not shift_jis" in refusal(path, encoding="shift_jis")

    def test_blank_lines_are_of_any_encoding(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.md", "月亮\n\n\n茶\n".encode("gbk"))
        assert "is not UTF-8: 2 of its 2 lines" in refusal(path)

    @pytest.mark.parametrize("name", ["nonsense", "rot13", "zlib", "hex", "undefined", "a\0b", ""])
    def test_a_name_of_no_text_encoding_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="not a text encoding"):
            known_encoding(name)

    @pytest.mark.parametrize("name", [None, "utf8", "UTF-8", "utf_8_sig"])
    def test_utf8_by_any_name_is_the_default(self, name: str | None) -> None:
        assert known_encoding(name) is None

    def test_lines_that_end_in_carriage_returns_alone_are_refused(self, tmp_path: Path) -> None:
        assert "carriage return" in refusal(write(tmp_path / "a.csv", b"id,text\r1,a\r2,b\r"))
        for encoding in ("mac-roman", "utf-16"):
            path = write(tmp_path / "a.txt", "café\rnoir\r".encode(encoding))
            assert "carriage return" in refusal(path, encoding=known_encoding(encoding))

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_several_byte_order_marks_are_no_part_of_the_first_name(
        self, tmp_path: Path, encoding: str
    ) -> None:
        path = write(tmp_path / "a.csv", '\ufeff\ufeff"id","text"\nx,a\n'.encode(encoding))
        assert documents(read(path, encoding=known_encoding(encoding))) == [("x", "a")]

    def test_a_compressed_input_without_the_ending_is_refused_as_such(self, tmp_path: Path) -> None:
        assert "gzip" in refusal(write(tmp_path / "a.txt", gzip.compress(b"a\n")))


@pytest.mark.parametrize("content", [b"x" * 2000, b"line\n" * 1000], ids=["line", "paragraph"])
def test_a_file_without_ends_of_texts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("qwen3_vllm._core.text_files.lines.LONGEST", 1024)
    monkeypatch.setattr("qwen3_vllm._core.text_files.records.LONGEST", 1024)
    assert "is longer than" in refusal(write(tmp_path / "a.md", content))
    with pytest.raises(InputError, match=r"^a\.md: a (line|paragraph) is longer than"):
        read_texts(content, "paragraphs", "a.md")


class TestFields:
    def test_dots_reach_into_objects_and_a_key_with_dots_comes_first(self, tmp_path: Path) -> None:
        lines = [
            {"document": {"text": "a", "id": 1}},
            {"document.text": "b", "document": {"text": "x", "id": 2}},
            {"document": {"id": 3}},
            {"document": "text"},
        ]
        path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)).encode())
        rows = read(path, fields=Fields("document.text", "document.id"))
        assert documents(rows) == [("1", "a"), ("2", "b")]
        assert [(row.number, row.id) for row in rows if row.problem] == [(3, "3"), (4, f"{path}:4")]

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (Fields("body"), "no column 'body', but has id, text: give --text-field"),
            (Fields("text.body"), "no column 'text.body'"),
            (Fields("text", "key"), "no column 'key', but has id, text: give --id-field"),
        ],
    )
    def test_one_that_no_row_has_is_refused_at_the_start(
        self, tmp_path: Path, fields: Fields, words: str
    ) -> None:
        path = write(tmp_path / "a.jsonl", b'{"id": 1, "text": "x"}\n{\n' * 2)
        assert words in refusal(path, fields)

    def test_lines_none_of_which_is_an_object_are_refused_at_the_start(self, tmp_path: Path) -> None:
        assert "is a JSON object" in refusal(write(tmp_path / "a.jsonl", b"one\ntwo\n"))


class TestNames:
    def test_bytes_that_are_not_utf8_are_written_out(self, tmp_path: Path) -> None:
        try:
            (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")
        except OSError:
            pytest.skip("this file system wants UTF-8")
        (source,) = find_sources([f"{tmp_path}/caf*.txt"])
        assert source.name == f"{tmp_path}/caf\\xe9.txt"
        (part,) = scan(0, source, 10, Fields()).parts
        assert [row and row.id for row in Reader(source, Fields()).rows(part)] == [
            f"{tmp_path}/caf\\xe9.txt:1"
        ]

    def test_parquet_of_such_a_name(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
        path = tmp_path / os.fsdecode(b"\xff.parquet")
        try:
            (tmp_path / "a.parquet").rename(path)
        except OSError:
            pytest.skip("this file system wants UTF-8")
        assert [text for _, text in documents(read(path))] == ["x"]

    def test_what_is_no_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "loop.txt").symlink_to("loop.txt")
        (tmp_path / "dangling.txt").symlink_to("gone.txt")
        (tmp_path / "folder.txt").mkdir()
        os.mkfifo(tmp_path / "pipe.txt")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(tmp_path / "s.txt")[:100])
        for name, words in (
            ("loop.txt", "Too many levels of symbolic links"),
            ("dangling.txt", "points to a file that is not there"),
            ("dangling*", "points to a file that is not there"),
            ("folder.txt", "is a folder"),
            ("pipe.txt", "is a pipe or a device"),
            ("x" * 300, "File name too long"),
            ("nul\0.txt", "cannot be read"),
        ):
            with pytest.raises(ConfigurationError, match=words):
                find_sources([f"{tmp_path}/{name}"])

    def test_a_folder_that_a_glob_finds_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "folder.txt").mkdir()
        (tmp_path / "a.txt").touch()
        assert [source.path.name for source in find_sources([f"{tmp_path}/*.txt"])] == ["a.txt"]
