"""The query and documents of a call, checked and made into pairs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.invalid_text import InvalidText, sendable
from qwen3_vllm._core.reranking.pairs import Pair
from qwen3_vllm._core.texts import Failures, check_list, check_text, one_or_each, unsendable_texts


def check_query(query: object, invalid_text: InvalidText) -> None:
    """Raise InputError unless it is one query, which can be sent."""
    if not isinstance(query, str) or invalid_text == "error":
        check_text(query, "the query")


def check_top_n(top_n: object) -> None:
    """Raise InputError unless it is a number of results, or None for all."""
    if top_n is not None and (not isinstance(top_n, int | np.integer) or top_n < 0):
        raise errors.InputError(f"top_n must be 0 or more, or None for all, not {top_n!r}")


def check_task(task: str) -> None:
    """Raise InputError unless it is an instruction, which the prompt needs."""
    check_text(task, "the instruction")
    if not task.strip():
        raise errors.InputError("the instruction is empty; leave it out for Qwen's own")


class Paired(NamedTuple):
    """The different pairs of a call.

    Attributes:
        pairs: Each once, control tokens neutralised.
        rows: Its place among these for each document; -1 where it cannot be sent.
        unsendable: Why, by index of the document.
    """

    pairs: list[Pair]
    rows: list[int]
    unsendable: Failures


def paired(query: str | Sequence[str], documents: Sequence[str], invalid_text: InvalidText) -> Paired:
    """Pair each document with the query: one for all, or one for each.

    Raises:
        InputError: Not a list, one query that cannot be sent, or not as many as there are documents.
    """
    check_list(documents, "document")
    one = isinstance(query, str) or not isinstance(query, Sequence | np.ndarray)
    if not one:
        check_list(query, "query")
    asked: Sequence[Any] = [query] if one else query
    texts = sendable([*asked, *documents], invalid_text)
    asked, documents = texts[: len(asked)], texts[len(asked) :]
    unsendable = unsendable_texts(documents)
    queries, bad_queries = one_or_each(asked[0] if one else asked, "query", "document", len(documents))
    unsendable |= {i: errors.InputError(f"has a query that {why}") for i, why in bad_queries.items()}
    different = {queries[0]} if one and queries else {query for query in queries if isinstance(query, str)}
    neutralised = {query: prompts.neutralise(query) for query in different}
    unique: dict[tuple[str, str], int] = {}
    rows = [
        -1 if index in unsendable else unique.setdefault((neutralised[q], prompts.neutralise(d)), len(unique))
        for index, (q, d) in enumerate(zip(queries, documents, strict=True))
    ]
    return Paired([Pair(*each) for each in unique], rows, unsendable)
