"""What the options of a server may be."""

from pathlib import Path
from typing import Any

import pytest

from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.serving import ServeOptions


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"port": "8000"}, "port must be a whole number or None, not str"),
        ({"port": True}, "port must be a whole number or None, not bool"),
        ({"max_num_seqs": 2.5}, "max_num_seqs must be a whole number, not float"),
        ({"gpu_memory_utilization": "0.5"}, "gpu_memory_utilization must be a number or None, not str"),
        ({"host": None}, "host must be text, not NoneType"),
        ({"device": "tpu"}, "device must be one of auto, cuda, cpu"),
        ({"role": "both"}, "role must be one of embedding, reranker"),
        ({"chat_template": "no"}, "chat_template must be True or False, not str"),
        ({"api_key_file": 3}, "api_key_file must be a path or None, not int"),
        ({"extra_args": "--seed 1"}, "extra_args must be a tuple of texts, not str"),
    ],
)
def test_a_wrong_type_is_a_configuration_error(wrong: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServeOptions(**{"role": "embedding", "model": "./m", **wrong})
    assert str(caught.value) == f"ServeOptions: {advice}"
    assert list(caught.value.problems) == list(wrong)


def test_the_error_holds_no_key() -> None:
    with pytest.raises(ConfigurationError, match="api_key must be text or None, not bytes") as caught:
        ServeOptions("embedding", "./m", api_key=b"hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in repr(caught.value)


def test_paths_and_lists_are_taken() -> None:
    options = ServeOptions("embedding", Path("m"), api_key_file="k", extra_args=["--seed", "1"])  # type: ignore[arg-type]
    assert options == ServeOptions("embedding", "m", api_key_file=Path("k"), extra_args=("--seed", "1"))
