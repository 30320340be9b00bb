"""An evaluation of many documents and queries, with canned vectors and scores, stays small."""

import tracemalloc
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.evaluation import Dataset, evaluate

DOCUMENTS, QUERIES, DIMENSIONS = 20_000, 60, 512
MATRIX_BYTES = 4 * DOCUMENTS * DIMENSIONS
CENTRES = np.random.default_rng(0).standard_normal((256, DIMENSIONS), np.float32)


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """Near a query's vector lies that of the document with the same number."""
    numbers = np.array([int(text.rpartition(" ")[2]) if text[-1].isdigit() else 0 for text in texts])
    noise = np.random.default_rng(zlib.crc32(texts[0].encode()))
    vectors = CENTRES[numbers % len(CENTRES)]
    vectors += np.float32(0.7) * noise.standard_normal(vectors.shape, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that answer without a server."""

    def stream(
        documents: Iterable[tuple[int, str]], client: EmbeddingClient, **options: Any
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        remaining = iter(documents)
        while some := list(islice(remaining, 512)):
            yield [place for place, _ in some], vectors_of([text for _, text in some])

    def embed(self: EmbeddingClient, texts: Sequence[str], **options: Any) -> np.ndarray:
        return vectors_of(texts)

    def score(
        self: RerankClient, query: str | Sequence[str], texts: Sequence[str], **options: Any
    ) -> np.ndarray:
        return np.array([zlib.crc32(text.encode()) / 2**32 for text in texts], np.float32)

    monkeypatch.setattr("qwen3_vllm.evaluation.search.embedding.embed_stream", stream)
    monkeypatch.setattr(EmbeddingClient, "embed_documents", embed)
    monkeypatch.setattr(EmbeddingClient, "embed_queries", embed)
    monkeypatch.setattr(EmbeddingClient, "cache_namespace", lambda self, role: f"canned-{role}")
    monkeypatch.setattr(RerankClient, "score", score)


def test_memory_does_not_hold_the_corpus(canned: None, tmp_path: Path) -> None:
    dataset = Dataset.of(
        {f"d{n}": f"Document {n}" for n in range(DOCUMENTS)},
        {f"q{n}": f"Query {n}" for n in range(QUERIES)},
        {f"q{n}": {f"d{n}": 1} for n in range(QUERIES)},
    )
    tracemalloc.start()
    try:
        result = evaluate(dataset, candidates=[0, 50], keep=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    stored = sum(path.stat().st_size for path in tmp_path.rglob("documents-*.rows"))
    assert stored >= MATRIX_BYTES
    assert peak < MATRIX_BYTES
    assert result.measured[0].metrics["R@100"].value > 0.5
