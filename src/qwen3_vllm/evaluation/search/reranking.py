"""Scores of candidates, each pair asked for once and kept."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm import RerankClient
from qwen3_vllm._core.reranking.same_model import PROBE_QUERY, PROBE_TASK, PROBES, is_same_model
from qwen3_vllm.evaluation.search.keeping import (
    TIMED_CALLS,
    Advance,
    Rows,
    Times,
    check_probes,
    file_name,
    key_of,
)
from qwen3_vllm.evaluation.search.searching import Ranking

_PAIRS = 1024  # scored between two writes: 32 requests of 32

Pool = Sequence[NDArray[np.int64]]
"""For each query, the places of its candidates in the corpus."""


class ScoredPairs:
    """The scores that one reranker gives with one instruction, in a file of its own."""

    def __init__(
        self,
        name: str,
        client: RerankClient,
        instruction: str,
        times: Times,
        folder: Path,
        open_files: ExitStack,
    ) -> None:
        """Meet the server, and make sure that kept scores are this model's.

        Args:
            instruction: "": the client's own.
            times: Of this reranker's calls, whatever the instruction.

        Raises:
            WrongServerError: Kept scores come from another model.
        """
        self._client = client
        self._instruction = instruction or None
        self._times = times
        own = scores_folder(folder, name)
        task = key_of(instruction or client.settings.instruction).hex()[:12]
        self._kept = open_files.enter_context(closing(Rows(own / f"{task}.rows", 1)))
        probes = client.score(PROBE_QUERY, PROBES, instruction=PROBE_TASK)
        check_probes(own / "probe.json", probes, is_same_model, client, f"other scores than {name!r}")

    def score(
        self,
        queries: Sequence[str],
        texts: Sequence[str],
        pool: Pool,
        timed: Ranking,
        sizes: Sequence[int],
        advance: Advance,
    ) -> None:
        """Score all pairs of a pool that have no score yet.

        The first are scored in calls as a user's would be, one after another: the first `size` candidates of
        a query in `timed`. Each query is timed at one size only, because a pair that was scored before is in
        the server's cache.

        Args:
            sizes: Numbers of candidates to measure calls of.
            advance: Called with how many pairs have a score now.
        """
        pairs = {
            key_of(query, texts[place]): (query, texts[place])
            for query, places in zip(queries, pool, strict=True)
            for place in places
        }
        advance(sum(map(len, pool)) - len(pairs) + sum(key in self._kept for key in pairs))
        for row, query in enumerate(queries):
            size = sizes[row % len(sizes)]
            places = timed.documents[row, :size]
            keys = [key_of(query, texts[place]) for place in places]
            if self._times.count(size) < TIMED_CALLS and len(self._kept.missing(keys)) == len(keys):
                documents = [texts[place] for place in places]
                with self._times.measure(size):
                    scores = self._client.score(query, documents, instruction=self._instruction)
                self._kept.append(keys, scores[:, None])
                advance(len(keys))
        left = [key for key in pairs if key not in self._kept]
        for start in range(0, len(left), _PAIRS):
            keys = left[start : start + _PAIRS]
            asked, about = zip(*(pairs[key] for key in keys), strict=True)
            scores = self._client.score(asked, about, instruction=self._instruction)
            self._kept.append(keys, scores[:, None])
            advance(len(keys))

    def rerank(
        self, queries: Sequence[str], texts: Sequence[str], found: Ranking, candidates: int
    ) -> Ranking:
        """Order the first candidates of each query by their scores, equal ones as the search did."""
        documents = found.documents[:, :candidates]
        keys = [
            key_of(query, texts[place])
            for query, places in zip(queries, documents, strict=True)
            for place in places
        ]
        scores = np.asarray(self._kept.values[self._kept.rows_of(keys), 0]).reshape(documents.shape)
        order = np.argsort(-scores, axis=1, kind="stable")
        return Ranking(np.take_along_axis(documents, order, 1), np.take_along_axis(scores, order, 1))


def scores_folder(folder: Path, name: str) -> Path:
    """Where scores of the reranker of this name are kept."""
    return folder / f"{file_name(name)}-scores"


def pool_of(rankings: Sequence[tuple[Ranking, int]]) -> Pool:
    """All candidates that several searches give to each query, from the first so many of each search."""
    return [
        np.unique(np.concatenate([found.documents[row, :count] for found, count in rankings]))
        for row in range(len(rankings[0][0].documents))
    ]
