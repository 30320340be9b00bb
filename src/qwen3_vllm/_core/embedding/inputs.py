"""The texts of a call, checked and made into prompts."""

from collections.abc import Sequence
from typing import NamedTuple

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.invalid_text import InvalidText, sendable
from qwen3_vllm._core.texts import Failures, check_list, one_or_each, unsendable_texts


class Prompted(NamedTuple):
    """The prompts of all texts but the unsendable ones, which are failures by index."""

    prompts: list[str]
    unsendable: Failures


def prompted_queries(
    texts: Sequence[str], instruction: str | Sequence[str], invalid_text: InvalidText
) -> Prompted:
    """Put the instruction before each query: one for all, or one for each.

    Raises:
        InputError: Not a list, an instruction that cannot be sent, or not as many as there are queries.
    """
    check_list(texts, "query")
    texts = sendable(texts, invalid_text)
    bad = unsendable_texts(texts)
    tasks, bad_tasks = one_or_each(instruction, "instruction", "query", len(texts))
    bad |= {i: errors.InputError(f"has an instruction that {why}") for i, why in bad_tasks.items()}
    prompted = [
        prompts.embedding_query(query, task)
        for index, (query, task) in enumerate(zip(texts, tasks, strict=True))
        if index not in bad
    ]
    return Prompted(prompted, bad)


def prompted_documents(texts: Sequence[str], invalid_text: InvalidText) -> Prompted:
    """Make documents into prompts.

    Raises:
        InputError: It is not a list.
    """
    check_list(texts, "document")
    texts = sendable(texts, invalid_text)
    bad = unsendable_texts(texts)
    good = [text for index, text in enumerate(texts) if index not in bad] if bad else texts
    return Prompted(list(map(prompts.embedding_document, good)), bad)
