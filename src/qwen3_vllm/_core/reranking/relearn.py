"""What failures say of a server: found out by small requests that are known to be good, then tried again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.discovery.capabilities import ask_most_texts, try_all, try_one
from qwen3_vllm._core.discovery.context_length import ask_context
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.reranking.pairs import Pair, Route
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.texts import token_bound
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import context_in, is_too_long, may_lack
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score_by

_MAY_BE_LONG = 300  # tokens, at most; a shorter pair is not refused for its length


def ask_most(server: RerankServer, most: int) -> Flow[int]:
    """Find out how many pairs a request may have, after one was refused; `most` if so many are taken."""
    server.most_texts.forget()
    return server.most_texts.get(lambda: ask_most_texts(most, lambda count: _letters(server, ["a"] * count)))


def scores_a_pair(server: RerankServer) -> Flow[bool]:
    """Whether the server scores a pair that is known to be good."""
    return isinstance((yield from try_one(_letters(server, ["a"]))), Scores)


def takes_routes(server: RerankServer, routes: Iterable[Route]) -> Flow[bool]:
    """Whether the server still takes good requests that go these ways, after it has refused some."""
    calls = {
        "tokens": classify(server.model, [[0]]),
        "finished": classify(server.model, [prompts.rerank_prompt("a", "b", prompts.DEFAULT_INSTRUCTION)]),
    }
    answers = yield from try_all(*(calls.get(route) or _letters(server, ["a"]) for route in routes))
    return not any(map(may_lack, answers))


def relearn(
    server: RerankServer, failures: Mapping[int, errors.Qwen3VLLMError], pairs: Sequence[Pair]
) -> Flow[tuple[RerankServer, list[int]] | None]:
    """Look whether prompts must be shorter than was thought.

    Args:
        failures: By index into `pairs`.

    Returns:
        What the server is, and the pairs to send again, cut; None where that would not help.
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
    """Whether failures tell that the server is not what was asked: what was counted is not too long."""
    return any(
        server.context is not None and server.counts.value is not False
        if is_too_long(error)
        else may_lack(error) and (none_scored or not isinstance(error, errors.BadRequestError))
        for error in failures.values()
    )


def _find_context(
    server: RerankServer, failures: Mapping[int, errors.Qwen3VLLMError], pairs: Sequence[Pair]
) -> Flow[tuple[list[int], int | None]]:
    """Find out how long a prompt may be, where long pairs were refused in words that do not say it."""
    doubtful = [index for index, error in failures.items() if may_lack(error)]
    bounds = [bound for index in doubtful if (bound := _bound(pairs[index])) > _MAY_BE_LONG]
    if not bounds:
        return [], None

    def call(tokens: int) -> Call[Scores]:
        return _letters(server, [" a" * tokens], in_prompts=server.classifies)

    context = yield from ask_context(min(bounds), call)
    if context is not None:
        answer = yield from try_one(call(context))
        if isinstance(answer, Scores):
            context = answer.prompt_tokens or context  # with those of the server's template
    return doubtful, context  # short ones were in the same requests


def _letters(server: RerankServer, documents: list[str], *, in_prompts: bool = False) -> Call[Scores]:
    if in_prompts or server.route is None:
        return classify(server.model, documents)
    return score_by(server.route, server.model, "a", documents)


def _bound(pair: Pair) -> int:
    return token_bound(pair.query) + token_bound(pair.document)
