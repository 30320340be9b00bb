"""What becomes of texts that UTF-8 cannot hold: the option `invalid_text`."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.texts import why_unsendable

InvalidText: TypeAlias = Literal["error", "replace"]

logger = logging.getLogger(__name__)


def sendable(texts: Sequence[Any], invalid_text: InvalidText) -> Sequence[Any]:
    """All texts of a call; with "replace", without what UTF-8 cannot hold."""
    if invalid_text == "error":
        return texts
    kept, changed = _without_surrogates(texts)
    if changed:
        logger.warning("%d of %s had lone surrogates, sent as U+FFFD", changed, counted(len(texts), "text"))
    return kept


def _without_surrogates(texts: Sequence[Any]) -> tuple[list[Any], int]:
    """Put U+FFFD for each lone surrogate, which UTF-8 cannot hold; and in how many texts that was.

    Two that make a pair become its character. What is not a string stays as it is.
    """
    kept = list(texts)
    changed = 0
    for index, text in enumerate(kept):
        if isinstance(text, str) and why_unsendable(text):
            kept[index] = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            changed += 1
    return kept, changed
