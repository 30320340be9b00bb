"""Cut texts to the server's context, as Qwen's reference cuts them, and sum up what was cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_all, try_one
from qwen3_vllm._core.discovery.context_length import ask_limit, overlong
from qwen3_vllm._core.embedding.server import EmbeddingServer, EndTokens
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.texts import Failures, cut_to_bound, may_exceed, token_bound
from qwen3_vllm._core.vllm_api.calls import TokenIds, tokenize
from qwen3_vllm._core.vllm_api.error_bodies import may_lack


@dataclass(frozen=True, slots=True)
class Truncation:
    """Texts cut to a server's context.

    Attributes:
        cut: How many were cut.
        perhaps: How many more may have been cut, by the server or by their bytes: nobody counts their tokens.
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
        """Say it of `total` texts; `noun` names one."""
        said = []
        if self.cut:
            said.append(
                f"{self.cut} of {counted(total, noun)} had to be cut to the server's {self.limit} tokens; "
                f"the longest had {self.longest}"
            )
        if self.perhaps:
            said.append(
                f"up to {self.perhaps} of {counted(total, noun)} may have been cut to the server's "
                f"{self.limit} tokens; it has no /tokenize to count them with"
            )
        return "; ".join(said)


T = TypeVar("T")

# Enough for another vector when all but its first words are cut.
_CUT_SAMPLE = "The capital of China is Beijing. Bananas are yellow, gravity is a force, and 北京 is old."
_CUT_TO = 4  # tokens
_SAME_COSINE = 0.9999


class Fitted(NamedTuple):
    """Texts as they can be sent: failures, and tokens before a cut to `limit`, by index.

    `left_to_server` are those that it must cut because it counts no tokens for us; `shortened` those that
    nobody counts, cut so that they certainly fit.
    """

    inputs: list[str | TokenIds]
    refused: Failures
    cut: dict[int, int]
    left_to_server: frozenset[int] = frozenset()
    limit: int = 0
    shortened: frozenset[int] = frozenset()

    @property
    def any_cut(self) -> bool:
        """Whether any text was cut, or may be by the server."""
        return bool(self.cut or self.left_to_server or self.shortened)

    def with_again(self, indexes: Sequence[int], again: "Fitted") -> "Fitted":
        """Put the texts at `indexes`, fitted again, in their places."""
        inputs = list(self.inputs)
        for index, text in zip(indexes, again.inputs, strict=True):
            inputs[index] = text

        def merged(old: Mapping[int, T], new: Mapping[int, T]) -> dict[int, T]:
            kept = {index: each for index, each in old.items() if index not in indexes}
            return kept | {indexes[place]: each for place, each in new.items()}

        def places(old: frozenset[int], new: frozenset[int]) -> frozenset[int]:
            return old.difference(indexes).union(indexes[place] for place in new)

        return Fitted(
            inputs,
            merged(self.refused, again.refused),
            merged(self.cut, again.cut),
            places(self.left_to_server, again.left_to_server),
            again.limit or self.limit,
            places(self.shortened, again.shortened),
        )


def fit(server: EmbeddingServer, texts: list[str], *, truncate: bool, surely: bool = False) -> Flow[Fitted]:
    """Replace texts longer than the context by the token ids that the reference keeps.

    Transformers keeps the first tokens and the end token, whose state is the embedding. Only texts that
    may have more tokens than all servers take, by their bytes, are counted.

    Args:
        surely: The server has refused them for their length: cut them even where nobody counts tokens.
    """
    inputs: list[str | TokenIds] = list(texts)
    context = server.context
    # One place is for the end token that the tokenizer appends.
    if context is None or not may_exceed(texts, context - 2):
        return Fitted(inputs, {}, {})
    long = [index for index, text in enumerate(texts) if token_bound(text) >= context - 1]
    if not long:
        return Fitted(inputs, {}, {})
    end = (yield from server.end.get(lambda: _ask_end(server.model))).tokens
    if end is None:
        return (yield from _fit_uncounted(server, inputs, long, context, truncate, surely))
    counted = yield from send(*(tokenize(server.model, texts[i]) for i in long))
    uncounted = [index for index, tokens in zip(long, counted, strict=True) if may_lack(tokens)]
    rest = Fitted(inputs, {}, {})
    if uncounted:
        server.end.forget()  # asked again before the next long text
        rest = yield from _fit_uncounted(server, inputs, uncounted, context, truncate, surely)
    longest = max((len(tokens) for tokens in counted if isinstance(tokens, list)), default=context)
    limit = context - 1
    if longest > limit:
        limit = yield from server.limit.get(lambda: _ask_limit(server, context))
    refused: Failures = {}
    cut: dict[int, int] = {}
    for index, tokens in zip(long, counted, strict=True):
        if index in uncounted:
            continue
        if isinstance(tokens, errors.Qwen3VLLMError):
            refused[index] = tokens
        elif len(tokens) > limit and not truncate:
            refused[index] = errors.TooLongError(f"has {len(tokens)} tokens; the server takes {limit}")
        elif len(tokens) > limit:
            inputs[index] = tokens[: limit - len(end)] + end
            cut[index] = len(tokens)
    return Fitted(inputs, refused, cut, rest.left_to_server, limit, rest.shortened)


def _fit_uncounted(
    server: EmbeddingServer,
    inputs: list[str | TokenIds],
    long: list[int],
    context: int,
    truncate: bool,
    surely: bool,
) -> Flow[Fitted]:
    """Without /tokenize the server cuts, or else texts are cut by their bytes when it has refused them."""
    limit = yield from server.limit.get(lambda: _ask_limit(server, context))
    if not truncate:
        return Fitted(inputs, {}, {}, limit=limit)
    if (yield from server.cuts_inputs.get(lambda: cuts_inputs(server))):
        left = frozenset(i for i in long if token_bound(str(inputs[i])) >= limit)
        return Fitted(inputs, {}, {}, left_to_server=left, limit=limit)
    if not surely:
        return Fitted(inputs, {}, {}, limit=limit)
    for index in long:
        inputs[index] = cut_to_bound(str(inputs[index]), limit - 1)
    return Fitted(inputs, {}, {}, limit=limit, shortened=frozenset(long))


def _ask_end(model: str) -> Flow[EndTokens]:
    tokens = yield from try_one(tokenize(model, ""))
    return EndTokens(None if isinstance(tokens, errors.Qwen3VLLMError) else tokens)


def _ask_limit(server: EmbeddingServer, context: int) -> Flow[int]:
    return ask_limit(context, server.question([[0] * overlong(context)]))


def cuts_inputs(server: EmbeddingServer) -> Flow[bool]:
    """Whether the server heeds `truncate_prompt_tokens`, by the vector of a text that it is to cut."""
    whole, cut = yield from try_all(
        server.question([_CUT_SAMPLE]), server.question([_CUT_SAMPLE], truncate_to=_CUT_TO)
    )
    if isinstance(whole, errors.Qwen3VLLMError) or isinstance(cut, errors.Qwen3VLLMError):
        return False
    return float(whole[0] @ cut[0]) < _SAME_COSINE


def truncation_of(fitted: Fitted, rows: Sequence[int]) -> Truncation:
    """Sum up what was cut of the texts whose places among the different ones are `rows`."""
    lengths = [fitted.cut[row] for row in rows if row in fitted.cut]
    perhaps = sum(row in fitted.left_to_server or row in fitted.shortened for row in rows)
    if not (lengths or perhaps):
        return Truncation()
    return Truncation(len(lengths), perhaps, max(lengths, default=0), fitted.limit)
