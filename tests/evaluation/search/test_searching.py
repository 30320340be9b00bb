"""Exact search: as plain numpy sorts, whatever the blocks, and of vectors in fewer bytes."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from qwen3_vllm.evaluation.search.quantising import (
    Blocks,
    VectorKind,
    bytes_per_vector,
    cut,
    similarity,
    stored,
)
from qwen3_vllm.evaluation.search.searching import search


def unit(rows: int, dimensions: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blocks_of(vectors: np.ndarray, size: int) -> Blocks:
    def blocks() -> Iterator[np.ndarray]:
        return (vectors[start : start + size] for start in range(0, len(vectors), size))

    return blocks


def best(scores: np.ndarray, depth: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :depth]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_nearest_are_found_in_any_blocks(size: int) -> None:
    documents, queries = unit(200, 16, 0), unit(300, 16, 1)

    found = search(blocks_of(documents, size), queries, 10)

    scores = queries @ documents.T
    assert found.documents.tolist() == best(scores, 10).tolist()
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, found.documents, 1), atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_equal_scores_keep_the_order_of_the_corpus(size: int) -> None:
    documents = np.array([[1, 0], [-1, 0], [0, 1], [-1, 0], [1, 0], [0, -1], [1, 0]], np.float32)
    found = search(blocks_of(documents, size), np.array([[1, 0]], np.float32), 6)
    assert found.documents.tolist() == [[0, 4, 6, 2, 5, 1]]
    assert found.scores.tolist() == [[1, 1, 1, 0, 0, -1]]


def test_a_corpus_smaller_than_the_depth_is_returned_whole() -> None:
    found = search(blocks_of(unit(3, 4, 0), 2), unit(2, 4, 1), 10)
    assert np.sort(found.documents, axis=1).tolist() == [[0, 1, 2]] * 2
    assert found.scores.shape == (2, 3)


def test_cutting_dimensions_keeps_unit_vectors() -> None:
    vectors = unit(5, 16, 0)
    shorter = cut(vectors, 4)
    np.testing.assert_allclose(np.linalg.norm(shorter, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        shorter, vectors[:, :4] / np.linalg.norm(vectors[:, :4], axis=1, keepdims=True), atol=1e-6
    )


def test_a_vector_that_is_cut_to_nothing_is_no_error() -> None:
    assert cut(np.array([[0, 0, 1]], np.float32), 2).tolist() == [[0, 0]]


def test_int8_ranks_as_one_byte_codes_do() -> None:
    documents, queries = unit(300, 8, 0), unit(20, 8, 1)
    low, high = documents.min(axis=0), documents.max(axis=0)
    codes = np.rint((documents - low) / (high - low) * 255)
    assert codes.min() == 0
    assert codes.max() == 255

    found = search(*stored(blocks_of(documents, 64), queries, 8, "int8"), 5)

    scores = queries @ (low + codes * (high - low) / 255).T
    assert found.documents.tolist() == best(scores, 5).tolist()


def test_binary_ranks_by_hamming_distance() -> None:
    documents, queries = unit(300, 12, 0), unit(20, 12, 1)
    distance = ((queries[:, None] > 0) != (documents[None] > 0)).sum(axis=2)

    found = search(*stored(blocks_of(documents, 64), queries, 12, "binary"), 5)

    assert found.documents.tolist() == best(-distance, 5).tolist()
    nearest = np.take_along_axis(distance, found.documents, 1)
    np.testing.assert_allclose(similarity(found.scores, 12, "binary"), 1 - 2 * nearest / 12, atol=1e-6)


def test_a_dimension_that_is_always_the_same_is_no_error() -> None:
    documents = np.array([[0.6, 0.8], [0.6, -0.8]], np.float32)
    found = search(*stored(blocks_of(documents, 1), documents, 2, "int8"), 1)
    assert found.documents.tolist() == [[0], [1]]


def test_bytes_are_those_of_the_codes() -> None:
    assert [bytes_per_vector(1024, kind) for kind in get_args(VectorKind)] == [4096, 1024, 128]
    assert bytes_per_vector(10, "binary") == 2
