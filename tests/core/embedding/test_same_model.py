"""Which vectors of one text are taken for those of one model."""

import numpy as np
import pytest

from qwen3_vllm._core.embedding.same_model import is_same_model


@pytest.mark.parametrize(("cosine", "same"), [(1.0, True), (0.9985, True), (0.99, False), (0.0, False)])
def test_rounding_passes_and_other_weights_do_not(cosine: float, same: bool) -> None:
    one = np.array([1, 0], np.float32)
    other = np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)
    assert is_same_model(one, other) is same


def test_other_dimensions_are_another_model() -> None:
    assert not is_same_model(np.ones(1, np.float32), np.ones(2, np.float32))
