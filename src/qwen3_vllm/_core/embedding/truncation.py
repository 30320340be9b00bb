"""Cut texts to the server's context, as Qwen's reference cuts them, and sum up what was cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qwen3_vllm import errors
from qwen3_vllm._core.discovery import ask_limit, overlong
from qwen3_vllm._core.embedding.probe import EmbeddingServer
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.texts import Failures, may_exceed, token_bound
from qwen3_vllm._core.vllm_api.calls import TokenIds, tokenize
from qwen3_vllm._core.vllm_api.embeddings import embed


@dataclass(frozen=True, slots=True)
class Truncation:
    """Texts cut to a server's context.

    Attributes:
        cut: How many were cut.
        perhaps: How many more the server itself may have cut: it does not count their tokens for us.
        longest: Tokens of the longest that was cut.
        limit: Tokens that they were cut to.
    """

    cut: int = 0
    perhaps: int = 0
    longest: int = 0
    limit: int = 0

    def __bool__(self) -> bool:
        return bool(self.cut or self.perhaps)

    def __add__(self, other: "Truncation") -> "Truncation":
        return Truncation(
            self.cut + other.cut,
            self.perhaps + other.perhaps,
            max(self.longest, other.longest),
            max(self.limit, other.limit),
        )

    def of_texts(self, total: int, noun: str) -> str:
        """Say it of `total` texts; `noun` is their plural."""
        said = []
        if self.cut:
            said.append(
                f"{self.cut} of {total} {noun} were cut to the server's {self.limit} tokens; the longest had "
                f"{self.longest}"
            )
        if self.perhaps:
            said.append(
                f"up to {self.perhaps} of {total} {noun} may have been cut by the server to its {self.limit} "
                "tokens; it has no /tokenize to count them with"
            )
        return "; ".join(said)


class Fitted(NamedTuple):
    """Texts as they can be sent: failures, and tokens before a cut to `limit`, by index.

    `left_to_server` are those that it must cut because it counts no tokens for us.
    """

    inputs: list[str | TokenIds]
    refused: Failures
    cut: dict[int, int]
    left_to_server: frozenset[int]
    limit: int

    @property
    def any_cut(self) -> bool:
        """Whether any text was cut, or may be by the server."""
        return bool(self.cut or self.left_to_server)


def fit(server: EmbeddingServer, texts: list[str], *, truncate: bool) -> Flow[Fitted]:
    """Replace texts longer than the context by the token ids that the reference keeps.

    Transformers keeps the first tokens and the end token, whose state is the embedding. Only texts that
    may have more tokens than all servers take, by their bytes, are counted.
    """
    inputs: list[str | TokenIds] = list(texts)
    context = server.context
    # One place is for the end token that the tokenizer appends.
    if context is None or not may_exceed(texts, context - 2):
        return Fitted(inputs, {}, {}, frozenset(), 0)
    long = [index for index, text in enumerate(texts) if token_bound(text) >= context - 1]
    if not long:
        return Fitted(inputs, {}, {}, frozenset(), 0)
    end, *counted = yield from send(
        tokenize(server.model, ""), *(tokenize(server.model, texts[i]) for i in long)
    )
    longest = max((len(tokens) for tokens in counted if isinstance(tokens, list)), default=context)
    limit = context - 1
    if longest > limit:
        refusal = embed(server.model, [[0] * overlong(context)], encoding="base64")
        limit = yield from server.limit.get(lambda: ask_limit(context, refusal))
    if isinstance(end, errors.RouteNotFoundError):
        left = [index for index in long if truncate and token_bound(texts[index]) >= limit]
        return Fitted(inputs, {}, {}, frozenset(left), limit)
    if isinstance(end, errors.Qwen3VLLMError):
        raise end
    refused: Failures = {}
    cut: dict[int, int] = {}
    for index, tokens in zip(long, counted, strict=True):
        if isinstance(tokens, errors.Qwen3VLLMError):
            refused[index] = tokens
        elif len(tokens) > limit and not truncate:
            refused[index] = errors.TooLongError(f"has {len(tokens)} tokens; the server takes {limit}")
        elif len(tokens) > limit:
            inputs[index] = tokens[: limit - len(end)] + end
            cut[index] = len(tokens)
    return Fitted(inputs, refused, cut, frozenset(), limit)


def truncation_of(fitted: Fitted, rows: Sequence[int]) -> Truncation:
    """Sum up what was cut of the texts whose places among the different ones are `rows`."""
    lengths = [fitted.cut[row] for row in rows if row in fitted.cut]
    perhaps = sum(row in fitted.left_to_server for row in rows)
    if not (lengths or perhaps):
        return Truncation()
    return Truncation(len(lengths), perhaps, max(lengths, default=0), fitted.limit)
