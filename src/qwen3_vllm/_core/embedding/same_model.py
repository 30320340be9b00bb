"""Whether vectors come from one model: a name says little about which model answers to it."""

from qwen3_vllm._core.vllm_api.embeddings import Vectors

PROBE = "The quick brown fox jumps over the lazy dog. 敏捷的棕色狐狸跳过懒狗。"
# Cosine. bfloat16 instead of float32 gave 0.9999 (the demo models), two GPUs for one 0.9999 (0.6B), and
# noise of 3 % on random weights 0.989. Another model is far below.
_SAME_MODEL = 0.995


def is_same_model(one: Vectors, other: Vectors) -> bool:
    """Whether two vectors of PROBE come from one model, with the same dimensions."""
    return one.shape == other.shape and float(one @ other) >= _SAME_MODEL
