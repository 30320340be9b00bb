"""What is scored: a query and a document, as they are sent."""

from dataclasses import dataclass

from qwen3_vllm._core.texts import Failures


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing to score, control tokens neutralised. `tokens`: the finished prompt, cut to the context."""

    query: str
    document: str
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """Pairs as they can be sent, in order.

    Attributes:
        refused: Why some cannot be sent, by index.
        cut: Tokens that the prompts of some had before they were cut to the context, by index.
        limit: Tokens that they were cut to.
    """

    pairs: list[Pair]
    refused: Failures
    cut: dict[int, int]
    limit: int = 0
