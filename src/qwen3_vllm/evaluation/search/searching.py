"""Exact search: the nearest documents of many queries, in memory that does not grow with the corpus."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.evaluation.search.quantising import Blocks

BLOCK_DOCUMENTS = 4096
_QUERIES = 256  # with a block of documents, 4 MiB of scores
_LOWEST = np.iinfo(np.int64).min
_PLACE_BITS = 32
_PLACES = (1 << _PLACE_BITS) - 1


@dataclass(frozen=True)
class Ranking:
    """The best documents of each query, best first.

    Attributes:
        documents: int64, shape (queries, depth): places in the corpus; fewer columns in a smaller corpus.
        scores: float32, same shape.
    """

    documents: NDArray[np.int64]
    scores: NDArray[np.float32]


def search(documents: Blocks, queries: Vectors, depth: int) -> Ranking:
    """Find the `depth` documents of the highest dot product for each query.

    Documents of equal scores keep the order of the corpus, whatever the blocks.
    """
    best = np.full((len(queries), depth), _LOWEST, np.int64)
    first = 0
    for block in documents():
        for start in range(0, len(queries), _QUERIES):
            rows = slice(start, start + _QUERIES)
            best[rows] = _merged(best[rows], queries[rows] @ block.T, first)
        first += len(block)
    return Ranking(*_split(np.sort(best, axis=1)[:, ::-1][:, : min(depth, first)]))


def _merged(best: NDArray[np.int64], scores: NDArray[np.float32], first: int) -> NDArray[np.int64]:
    """Put what is better in `scores` into the best keys so far, in no order."""
    worst = best.min(axis=1, keepdims=True)
    floor = np.where(worst == _LOWEST, np.float32(-np.inf), _split(worst)[1])
    rows, columns = np.nonzero(scores >= floor)  # few, after the first blocks
    counts = np.bincount(rows, minlength=len(scores))
    better = np.full((len(scores), counts.max()), _LOWEST, np.int64)
    better[rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = _keys(
        scores[rows, columns], first + columns
    )
    depth = best.shape[1]
    return np.partition(np.concatenate([best, better], axis=1), -depth, axis=1)[:, -depth:]


def _keys(scores: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join score and place in one integer: greater for a higher score, then for an earlier place."""
    # As integers, the bits of positive floats are ordered; those of negative ones backwards. + 0: one zero.
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    keys: NDArray[np.int64] = (_ordered(bits) << _PLACE_BITS) | (_PLACES - places)
    return keys


def _split(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and scores of keys."""
    bits = _ordered(keys >> _PLACE_BITS).astype(np.int32)
    return _PLACES - (keys & _PLACES), bits.view(np.float32)


def _ordered(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn the order of negative numbers around; the same again turns it back."""
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
