"""Documents cut by their bytes, so that their prompts certainly fit, where nobody counts tokens."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_all
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.reranking.pairs import Fitted, Pair
from qwen3_vllm._core.texts import cut_to_bound, token_bound
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.scores import Scores

logger = logging.getLogger(__name__)

_SHORTEST = "a"
_MERGED = 4  # tokens that a document may need more beside its query than alone
_LEAST_BYTES = 16  # of a document that are kept whatever the bytes of its query


def cut_uncounted(
    fitted: Fitted,
    long: Sequence[int],
    room: int,
    context: int,
    measure: Callable[[Pair], Call[Scores]],
    truncate: bool,
) -> Flow[None]:
    """Cut the documents at the indexes of `long`.

    Args:
        room: Tokens for query and document, at least.
        measure: Scores a pair as it will be sent.

    Raises:
        TooLongError: The one query of the call leaves no room for a document.
    """
    fitted.limit = context
    rooms = yield from _rooms_for_documents(fitted, long, room, measure)
    if not truncate:
        return
    shortened = 0
    for index in long:
        pair = fitted.pairs[index]
        if pair.query in rooms and token_bound(pair.document) > rooms[pair.query]:
            fitted.pairs[index] = replace(pair, document=cut_to_bound(pair.document, rooms[pair.query]))
            shortened += 1
    if shortened:
        _warn(shortened, f"fit the server's {context} tokens")


def _rooms_for_documents(
    fitted: Fitted, long: Sequence[int], room: int, measure: Callable[[Pair], Call[Scores]]
) -> Flow[dict[str, int]]:
    """Find out how many tokens a document may have beside each query; refuse queries that leave no room.

    What a query needs is known from its prompt with the shortest document, where tokens are reported.
    """
    queries = list(dict.fromkeys(fitted.pairs[index].query for index in long))
    answers = yield from try_all(*(measure(Pair(query, _SHORTEST)) for query in queries))
    rooms: dict[str, int] = {}
    for query, answer in zip(queries, answers, strict=True):
        if isinstance(answer, errors.Qwen3VLLMError):
            why = f"with a document of one letter its prompt exceeds the server's {fitted.limit} tokens"
            for index in long:
                if fitted.pairs[index].query == query:
                    fitted.refuse_query(index, why, answer)
            continue
        surely = room - token_bound(query)
        counted = answer.prompt_tokens
        rooms[query] = max(surely, fitted.limit - counted - _MERGED if counted else _LEAST_BYTES)
    return rooms


def cut_documents_to(fitted: Fitted, long: Sequence[int], limit: int) -> None:
    """Cut documents to so many tokens or fewer."""
    for index in long:
        pair = fitted.pairs[index]
        fitted.pairs[index] = replace(pair, document=cut_to_bound(pair.document, limit))
    _warn(len(long), f"max_tokens_per_doc={limit}")


def _warn(count: int, to_what: str) -> None:
    logger.warning(
        "%s had to be cut by bytes, shorter than necessary, to %s: the server has no /tokenize to count "
        "with; pass tokenizer for exact cuts",
        counted(count, "document"),
        to_what,
    )
