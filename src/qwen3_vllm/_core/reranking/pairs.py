"""What is scored: a query and a document, as they are sent."""

from dataclasses import dataclass, field
from typing import Literal

from qwen3_vllm import errors
from qwen3_vllm._core.texts import Failures

# How a pair travels: as it is, for the server to template; as two parts of the finished prompt; finished; or
# finished and cut, as token ids.
Route = Literal["raw", "split", "finished", "tokens"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing to score, control tokens neutralised. `tokens`: the finished prompt, cut to the context."""

    query: str
    document: str
    tokens: tuple[int, ...] | None = None


@dataclass(slots=True)
class Fitted:
    """Pairs as they can be sent, in order.

    Attributes:
        one_query: Whether all pairs of the call, which may be more than these, have one query.
        refused: Why some cannot be sent, by index.
        cut: Tokens that the prompts of some had before they were cut to the context, by index.
        limit: Tokens that they were cut to.
    """

    pairs: list[Pair]
    one_query: bool
    refused: Failures = field(default_factory=dict)
    cut: dict[int, int] = field(default_factory=dict)
    limit: int = 0

    def refuse_query(self, index: int, why: str, cause: Exception | None = None) -> None:
        """Refuse a pair whose query leaves no room for a document.

        Raises:
            TooLongError: It is the query of the whole call.
        """
        if self.one_query:
            raise errors.TooLongError(f"the query is too long: {why}") from cause
        self.refused[index] = errors.TooLongError(f"has a query that is too long: {why}")
