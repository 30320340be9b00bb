"""Whether scores come from one model: a name says little about which model answers to it."""

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm._core.reranking.logits import logits

PROBE_TASK = "Given a question, find the passages that answer it"
PROBE_QUERY = "What is the capital of China?"
PROBES = (
    "The capital of China is Beijing.",
    "中国的首都是北京。",
    "Beijing is large.",
    "Bananas are yellow.",
)
# Of log-odds, which half precision moves by up to 0.25, whatever the score. Scores near 0 and 1 hardly move.
_SAME_MODEL = 0.5


def is_same_model(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two answers to the probes come from one model."""
    return one.shape == other.shape and float(np.abs(logits(one) - logits(other)).max()) <= _SAME_MODEL
