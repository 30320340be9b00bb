"""What comes back of one call: the scores of its pairs."""

import numpy as np

from qwen3_vllm._core.reranking.ranking import RelevanceScores
from qwen3_vllm._core.vllm_api.scores import Scores


class Collector:
    """Takes scores as they arrive; `scores` is uninitialised where none has."""

    def __init__(self, count: int) -> None:
        self.scores: RelevanceScores = np.empty(count, np.float32)

    def take(self, batch: list[int], scores: Scores) -> None:
        """Keep the scores of the pairs at the indexes of `batch`."""
        self.scores[batch] = scores.values
