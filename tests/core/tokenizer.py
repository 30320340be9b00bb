"""Qwen3's own tokenizer, which takes a second to build."""

from functools import cache

from tokenizers import Tokenizer

from demo import qwen3_tokenizer


@cache
def tokenizer() -> Tokenizer:
    return qwen3_tokenizer.build()
