"""Texts before they are sent: whether they can be, and how many tokens they may have. Pure."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core.plurals import counted, plural

Failures = dict[int, errors.Qwen3VLLMError]

_MOST_TOKENS_A_CHARACTER = 12  # UTF-8 has 4 bytes at most, and NFC triples some


def check_text(text: object, name: str) -> None:
    """Raise InputError unless `text` can be sent."""
    reason = why_unsendable(text)
    if reason:
        raise errors.InputError(f"{name} {reason}")


def check_list(items: object, noun: str) -> None:
    """Raise InputError unless `items` can be counted and indexed, and is not one string."""
    one = isinstance(items, str | bytes | bytearray | memoryview)
    many = items.ndim > 0 if isinstance(items, np.ndarray) else isinstance(items, Sequence)
    if one or not many:
        raise errors.InputError(f"pass a list of {plural(noun)}, not one {type(items).__name__}")


def unsendable_texts(texts: Sequence[object]) -> Failures:
    """Find what no server can take, by index; the errors say what is wrong, not yet where."""
    if _all_ascii(texts):
        return {}
    found: Failures = {}
    for index, text in enumerate(texts):
        reason = why_unsendable(text)
        if reason:
            found[index] = errors.InputError(reason)
    return found


def _all_ascii(texts: Iterable[Any]) -> bool:
    try:
        return all(map(str.isascii, texts))
    except TypeError:  # not a string
        return False


def one_or_each(given: Any, noun: str, of: str, count: int) -> tuple[Sequence[Any], Failures]:
    """Take one text for all of `count` others, or one for each; failures by index.

    Args:
        of: What the others are, such as "query".

    Raises:
        InputError: The one cannot be sent, or there are not as many as others.
    """
    each: Sequence[Any] = given
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        check_text(given, f"the {noun}")
        return [given] * count, {}
    check_list(given, noun)
    if len(each) != count:
        raise errors.InputError(
            f"{counted(len(each), noun)} for {counted(count, of)}: pass one, or one for each {of}"
        )
    return each, unsendable_texts(each)


def why_unsendable(text: object) -> str | None:
    if not isinstance(text, str):
        return f"is not a string but {type(text).__name__}"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has a lone surrogate at character {error.start}, which UTF-8 cannot hold"
    return None


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text: not lone surrogates, which also stand for bytes that were no text."""
    return why_unsendable(text) is None


def token_bound(text: str) -> int:
    """The most tokens `text` can have: Qwen3's byte-level BPE gives none for less than one byte.

    The tokenizer composes characters first (NFC), which in rare scripts makes a text longer.
    """
    if text.isascii():
        return len(text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return len(text.encode())


def cut_to_bound(text: str, tokens: int) -> str:
    """Cut a text so that it certainly has no more than so many tokens, without halving a character."""
    cut = text
    while (bound := token_bound(cut)) > max(tokens, 0):
        size = len(cut.encode())
        cut = cut.encode()[: min(size - 1, size * tokens // bound)].decode("utf-8", "ignore")
    return cut


def may_exceed(texts: Iterable[str], tokens: int) -> bool:
    """Whether any text can have more than `tokens` tokens, judged in no time by the longest."""
    return _MOST_TOKENS_A_CHARACTER * max(map(len, texts), default=0) > tokens
