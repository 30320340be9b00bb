"""The data set that is made of docstrings."""

from pathlib import Path

from demo.docstrings import described, library, split, write
from qwen3_vllm.evaluation import read_dataset

SOURCE = '''
class Pool:
    """Keep workers alive between one task and the next.

    They are started when the first task comes, and stopped when the pool is closed
    or is no longer needed.
    """

    def _hidden(self):
        """This one is of no concern to anybody who reads it.

        It is not a part of what the class promises, and may be gone in another release.
        """

def short():
    """Only a line."""
'''


def test_a_docstring_is_a_question_and_its_answer() -> None:
    (found,) = described(SOURCE, ("work", "pool"))
    assert found.question == "Keep workers alive between one task and the next."
    assert found.passage.startswith("work.pool.Pool\nThey are started when the first task comes, and stopped")


def test_no_module_is_trained_on_and_measured_with(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"m{number}.py").write_text(SOURCE.replace("task", f"task {number}"))
    train, test = split(list(library(tmp_path)))
    assert (len(train), len(test)) == (7, 3)
    assert {each.module for each in train}.isdisjoint(each.module for each in test)

    write(tmp_path / "data", [*train, *test], {"train": train, "test": test})

    assert len(read_dataset(tmp_path / "data").queries) == 3
    assert len(read_dataset(tmp_path / "data", judgements=tmp_path / "data/qrels/train.tsv").queries) == 7
