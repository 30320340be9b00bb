"""Vectors as a database stores them: cut, and in fewer bytes. Pure.

What is stored in fewer bytes is searched here as the float32 numbers it stands for: the order of the
documents is that of a database with the same codes and an exact search.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm._core.vllm_api.embeddings import Vectors

VectorKind = Literal["float32", "int8", "binary"]
Blocks = Callable[[], Iterator[Vectors]]
"""Gives the vectors of all documents, in order, some at a time; may be called again."""

_STEPS = 255


def bytes_per_vector(dimensions: int, kind: VectorKind) -> int:
    return {"float32": 4 * dimensions, "int8": dimensions, "binary": -(-dimensions // 8)}[kind]


def similarity(scores: NDArray[np.float32], dimensions: int, kind: VectorKind) -> NDArray[np.float32]:
    """Turn dot products into numbers from -1 to 1: cosines, or for bits 1 - 2 × the share that differs."""
    found: NDArray[np.float32] = scores / np.float32(dimensions if kind == "binary" else 1)
    return found


def cut(vectors: Vectors, dimensions: int) -> Vectors:
    """Keep the first `dimensions` components, L2-normalised, as Matryoshka embeddings are cut."""
    if vectors.shape[1] == dimensions:
        return np.asarray(vectors, np.float32)
    kept = np.array(vectors[:, :dimensions], np.float32)
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    np.divide(kept, norms, out=kept, where=norms > 0)
    return kept


def stored(documents: Blocks, queries: Vectors, dimensions: int, kind: VectorKind) -> tuple[Blocks, Vectors]:
    """Return documents as they come back from storage, and the queries to multiply them with.

    - int8: 256 even steps between the least and the greatest value of each dimension, as FAISS and Milvus do
      it (SQ8); queries stay float32.
    - binary: the sign of each component, of queries too. The product of two vectors of ±1 falls as their
      Hamming distance grows, so it ranks alike; documents at the same distance stay in the corpus's order.
    """
    asked = cut(queries, dimensions)

    def blocks() -> Iterator[Vectors]:
        return (cut(block, dimensions) for block in documents())

    if kind == "float32":
        return blocks, asked
    if kind == "binary":
        return lambda: map(_signs, blocks()), _signs(asked)
    least, step = _calibrate(blocks())
    return lambda: (_rounded(block, least, step) for block in blocks()), asked


def _calibrate(blocks: Iterable[Vectors]) -> tuple[Vectors, Vectors]:
    ranges = [(block.min(axis=0), block.max(axis=0)) for block in blocks]
    least = np.min([low for low, _ in ranges], axis=0)
    most = np.max([high for _, high in ranges], axis=0)
    step: NDArray[np.float32] = (most - least) / np.float32(_STEPS)
    return least, np.where(step > 0, step, np.float32(1))


def _rounded(block: Vectors, least: Vectors, step: Vectors) -> Vectors:
    codes = np.rint((block - least) / step)
    rounded: Vectors = codes * step + least
    return rounded


def _signs(block: Vectors) -> Vectors:
    return np.where(block > 0, np.float32(1), np.float32(-1))
