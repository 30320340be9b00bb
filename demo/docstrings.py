"""Write a data set in BEIR's layout, with questions to train on: what the functions of Python's library do.

    python -m demo.docstrings DIR

The first paragraph of a docstring is the question, and the rest of it, under the object's name, the passage
that answers it. All come from the library of the Python that runs this; no file of it is imported. The
modules in qrels/test.tsv are others than those in qrels/train.tsv. `--train` and `--test` keep the first so
many questions of each.
"""

import argparse
import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TEST_SHARE = 0.3  # of the modules
QUESTION = range(25, 161)  # characters
PASSAGE = range(80, 401)
# What is not the library itself, and what many installations lack.
SKIPPED = {
    *("dist-packages", "site-packages", "test", "tests"),
    *("idlelib", "lib2to3", "pydoc_data", "tkinter", "turtle", "turtledemo"),
}
SEED = 0


@dataclass(frozen=True)
class Described:
    """A docstring in two."""

    module: str  # the outermost package
    name: str
    question: str
    passage: str


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--train", type=int, help="questions to train on; all unless given")
    parser.add_argument("--test", type=int, help="questions to measure with; all unless given")
    options = parser.parse_args()
    found = list(library(Path(sysconfig.get_path("stdlib"))))
    train, test = split(found)
    train, test = train[: options.train], test[: options.test]
    write(options.folder, found, {"train": train, "test": test})
    print(f"{len(found):,} passages, {len(train):,} questions to train on, {len(test):,} to measure with")


def library(folder: Path) -> Iterator[Described]:
    """Yield the docstrings of all modules in a folder, each name, question and passage once."""
    seen: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if SKIPPED.isdisjoint(parts):
            for each in described(path.read_text(encoding="utf-8", errors="replace"), parts):
                if seen.isdisjoint((each.name, each.question, each.passage)):
                    seen.update((each.name, each.question, each.passage))
                    yield each


def described(source: str, module: Sequence[str]) -> Iterator[Described]:
    """Yield the docstrings of public functions and classes that are long enough to be cut in two."""
    names = [*(part for part in module if part != "__init__")]
    outer: list[tuple[ast.AST, list[str]]] = [(ast.parse(source), names)]
    while outer:
        node, names = outer.pop(0)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            name = [*names, child.name]
            if isinstance(child, ast.ClassDef):
                outer.append((child, name))
            first, *others = re.split(r"\n\s*\n", ast.get_docstring(child) or "", maxsplit=1)
            question, passage = " ".join(first.split()), " ".join("".join(others).split())
            if not child.name.startswith("_") and len(question) in QUESTION and len(passage) >= PASSAGE.start:
                yield Described(
                    module[0], ".".join(name), question, f"{'.'.join(name)}\n{passage[: PASSAGE.stop - 1]}"
                )


def split(found: Sequence[Described]) -> tuple[list[Described], list[Described]]:
    """Return those to train on and those to measure with, each in random order, without a module in both."""
    modules = sorted({each.module for each in found})
    chance = random.Random(SEED)
    held_out = set(chance.sample(modules, round(TEST_SHARE * len(modules))))
    shuffled = chance.sample(found, len(found))
    train = [each for each in shuffled if each.module not in held_out]
    return train, [each for each in shuffled if each.module in held_out]


def write(folder: Path, documents: Sequence[Described], asked: dict[str, Sequence[Described]]) -> None:
    """Write corpus.jsonl, queries.jsonl and a file of judgements for each of `asked`."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _write_lines(folder / "corpus.jsonl", ({"_id": each.name, "text": each.passage} for each in documents))
    queries = [each for split in asked.values() for each in split]
    _write_lines(folder / "queries.jsonl", ({"_id": each.name, "text": each.question} for each in queries))
    for name, of_split in asked.items():
        rows = ["query-id\tcorpus-id\tscore", *(f"{each.name}\t{each.name}\t1" for each in of_split)]
        (folder / "qrels" / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
