"""What the tests of bulk embedding share: a canned server, inputs, and the content of an output."""

import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fake_vllm import FakeVLLM
from tests.faults import Reply

DIMENSIONS = 8


class Canned(FakeVLLM):
    """An embedding server that picks each vector from a table by a hash of the text; remembers the texts."""

    def __init__(self, seed: int = 0, model: str = "canned", dimensions: int = DIMENSIONS) -> None:
        super().__init__("embedding", model=model, dimensions=dimensions, missing=("/tokenize",))
        table = np.random.default_rng(seed).standard_normal((4096, dimensions)).astype("<f4")
        self.table = table / np.linalg.norm(table, axis=1, keepdims=True)
        self.texts: list[str] = []

    def _embeddings(self, body: dict[str, Any]) -> Reply:
        self.texts += body["input"]
        content = self.table[[self.row(text) for text in body["input"]]].tobytes()
        return Reply(200, content, {"Content-Type": "application/octet-stream"})

    @staticmethod
    def row(text: str) -> int:
        return zlib.crc32(text.encode()) % 4096

    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        assert isinstance(prompt, str)
        return self.table[self.row(prompt)]

    def documents(self) -> list[str]:
        """The texts asked for that are documents of `write_jsonl`."""
        return [text for text in self.texts if text.startswith("document ")]


def write_jsonl(path: Path, count: int, start: int = 0) -> Path:
    records = [{"id": f"d{n}", "text": f"document {n}"} for n in range(start, start + count)]
    return write_lines(path, map(json.dumps, records))


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def read_output(out: Path) -> pa.Table:
    """All rows of an output, in the order of the parts' names."""
    return pa.concat_tables(
        [pq.read_table(path).replace_schema_metadata(None) for path in sorted(out.glob("*.parquet"))]
    )


def ids(out: Path) -> list[str]:
    return read_output(out).column("id").to_pylist()


def vectors(out: Path) -> np.ndarray:
    return np.array(read_output(out).column("embedding").to_pylist(), np.float32)


def errors(out: Path) -> list[dict[str, Any]]:
    path = out / "errors.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
