"""Scores compared as logits, where rounding is alike for all of them. Pure."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qwen3_vllm._core.vllm_api.scores import Scores

# A template with one newline missing moves the logit of some pair by more than the first of these, while one
# prompt on two routes differs by less, in 32 bits. In 16 bits it may differ by more: then a right template is
# taken for a wrong one, and finished prompts are sent, which score the same.
SAME_LOGIT = 0.05
SIMILAR_LOGIT = 0.5  # what rounding alone cannot exceed


def logits(scores: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of scores; clipped, as float32 holds no more of a score near 1, and they are noise there."""
    p = np.asarray(scores, np.float64).clip(1e-6, 1 - 1e-6)
    found: NDArray[np.float64] = np.log(p / (1 - p))
    return found


def same(some: Scores, others: Scores, tolerance: float = SAME_LOGIT) -> bool:
    """Whether both are scores of the same prompts: as many tokens, and logits alike."""
    if some.prompt_tokens and others.prompt_tokens and some.prompt_tokens != others.prompt_tokens:
        return False
    return bool(np.abs(logits(some.values) - logits(others.values)).max() <= tolerance)
