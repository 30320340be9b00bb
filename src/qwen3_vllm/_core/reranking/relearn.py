"""What failures say of a server: found out by small requests that are known to be good, then tried again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qwen3_vllm import errors
from qwen3_vllm._core.capabilities import ask_most_texts
from qwen3_vllm._core.context_length import ask_context
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.reranking.pairs import Pair
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.texts import token_bound
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import context_in, is_too_long, may_lack
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score_by

_MAY_BE_LONG = 300  # tokens, at most; a shorter pair is not refused for its length


def ask_most(server: RerankServer, batch_size: int) -> Flow[int]:
    """Find out once how many pairs a request may have."""
    return server.most_texts.get(
        lambda: ask_most_texts(batch_size, lambda count: _letters(server, ["a"] * count))
    )


def relearn(
    server: RerankServer, failures: Mapping[int, errors.Qwen3VLLMError], pairs: Sequence[Pair]
) -> Flow[tuple[RerankServer, list[int]] | None]:
    """Look whether prompts must be shorter than was thought.

    Args:
        failures: By index into `pairs`.

    Returns:
        What the server is, and the pairs to cut and send again; None where that would not help.
    """
    context = None
    too_long = [index for index, error in failures.items() if is_too_long(error)]
    if too_long:
        lengths = [context_in(failures[index]) or server.context for index in too_long]
        context = min((length for length in lengths if length), default=None)
    elif any(map(may_lack, failures.values())):
        too_long, context = yield from _find_context(server, failures, pairs)
    if context is None:
        return None
    if context != server.context:
        server.lengths.forget()
    return replace(server, context=context), too_long


def seems_another(
    server: RerankServer, failures: Mapping[int, errors.Qwen3VLLMError], none_scored: bool
) -> bool:
    """Whether failures tell that the server is not what was asked: what fits there is not too long."""
    return any(
        server.context is not None
        if is_too_long(error)
        else may_lack(error) and (none_scored or not isinstance(error, errors.BadRequestError))
        for error in failures.values()
    )


def _find_context(
    server: RerankServer, failures: Mapping[int, errors.Qwen3VLLMError], pairs: Sequence[Pair]
) -> Flow[tuple[list[int], int | None]]:
    """Find out how long a prompt may be, where long pairs were refused in words that do not say it."""
    long = [i for i, error in failures.items() if may_lack(error) and _bound(pairs[i]) > _MAY_BE_LONG]
    if not long:
        return [], None
    bound = min(_bound(pairs[index]) for index in long)
    return long, (yield from ask_context(bound, lambda tokens: _letters(server, [" a" * tokens])))


def _letters(server: RerankServer, documents: list[str]) -> Call[Scores]:
    if server.route is None:
        return classify(server.model, documents)
    return score_by(server.route, server.model, "a", documents)


def _bound(pair: Pair) -> int:
    return token_bound(pair.query) + token_bound(pair.document)
