"""What is kept: whole after any end, and never another text's."""

from pathlib import Path

import numpy as np
import pytest

from qwen3_vllm.evaluation.search.keeping import Rows, Times, file_name, key_of

A, B, C = (key_of(text) for text in "abc")


def test_rows_come_back_by_their_keys(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "new" / "x.rows", 2)
    assert rows.values.shape == (0, 2)
    rows.append([A, B], np.array([[1, 2], [3, 4]], np.float32))
    rows.close()

    again = Rows(tmp_path / "new" / "x.rows", 2)
    again.append([C], np.array([[5, 6]], np.float32))
    assert again.missing([A, key_of("d"), C, key_of("d")]) == [1]
    assert again.values[again.rows_of([C, A, A])].tolist() == [[5, 6], [1, 2], [1, 2]]
    again.close()


@pytest.mark.parametrize("lost", [1, 5, 23])
def test_a_row_that_was_half_written_is_cut_off_and_written_anew(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "x.rows"
    rows = Rows(path, 2)
    rows.append([A, B], np.array([[1, 2], [3, 4]], np.float32))
    rows.close()
    path.write_bytes(path.read_bytes()[:-lost])

    again = Rows(path, 2)
    assert again.missing([A, B]) == [1]
    again.append([B], np.array([[7, 8]], np.float32))
    assert again.values[again.rows_of([A, B])].tolist() == [[1, 2], [7, 8]]
    again.close()


def test_texts_are_not_joined_before_they_are_hashed() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("a\0", "bc")}) == 4


def test_times_survive_a_half_written_line(tmp_path: Path) -> None:
    times = Times(tmp_path / "times.jsonl")
    for seconds in (0.1, 0.3, 0.2):
        times.add(10, seconds, 50)
    with (tmp_path / "times.jsonl").open("ab") as file:
        file.write(b'\n{"size":10,"sec')
    again = Times(tmp_path / "times.jsonl")
    again.add(20, 0.4, None)

    last = Times(tmp_path / "times.jsonl")
    assert (last.count(10), last.count(20)) == (3, 1)
    assert last.seconds(10) == 0.2
    assert last.seconds(15) == pytest.approx(0.3)
    assert last.seconds(40) == pytest.approx(0.8)
    assert last.tokens(10) == 50
    assert Times(tmp_path / "none.jsonl").seconds(10) is None


def test_names_become_file_names_that_differ() -> None:
    names = ["8B", "8B/int4", "8B:int4", "模型", "型模", "x" * 50, "x" * 51, "../up"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert files[0] == "8B"
    assert all("/" not in name and ":" not in name and len(name) < 60 for name in files)
