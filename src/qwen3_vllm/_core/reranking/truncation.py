"""Cut documents so that their prompts fit the server's context, as Qwen's reference cuts them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.reranking.byte_cuts import cut_documents_to, cut_uncounted
from qwen3_vllm._core.reranking.counting import Counter, ask_counter
from qwen3_vllm._core.reranking.pairs import Fitted, Pair
from qwen3_vllm._core.reranking.prompt_cuts import REPLACEMENT, cut_prompts
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.texts import cut_to_bound, token_bound
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import may_lack
from qwen3_vllm._core.vllm_api.scores import Scores

logger = logging.getLogger(__name__)

_COUNTERS = 2  # the server, and whoever there is when it no longer counts


def fit(
    pairs: list[Pair],
    instruction: str,
    server: RerankServer,
    *,
    one_query: bool,
    max_tokens_per_doc: int | None,
    truncate: bool,
    tokenizer: str | None = None,
    measure: Callable[[Pair], Call[Scores]] | None = None,
) -> Flow[Fitted]:
    """Cut what is too long; only the document loses tokens. Short pairs cost no request.

    Args:
        one_query: Whether all pairs of the call, which may be more than these, have one query.
        max_tokens_per_doc: Tokens of a document alone, whole characters, as vLLM's field of that name.
        truncate: False refuses pairs longer than the context instead of cutting them.
        tokenizer: Counts where the server does not.
        measure: Scores a pair as it will be. Given where the server has refused the pairs for their length:
            they are cut even where nobody counts tokens.

    Raises:
        TooLongError: The instruction, or the one query of the call, leaves no room for a document.
    """
    fitted = Fitted(list(pairs), one_query)
    if max_tokens_per_doc is not None:
        long = [i for i, pair in enumerate(pairs) if token_bound(pair.document) > max_tokens_per_doc]
        if long:
            counter = yield from ask_counter(server, tokenizer)
            yield from _cut_documents(fitted, long, max_tokens_per_doc, counter)
    context = server.context
    if context is None:
        return fitted
    overhead = token_bound(prompts.rerank_prompt("", "", "")) if server.overhead is None else server.overhead
    room = context - 1 - overhead - token_bound(instruction)  # all servers take one token less
    long = [
        i
        for i, pair in enumerate(fitted.pairs)
        if i not in fitted.refused and token_bound(pair.query) + token_bound(pair.document) > room
    ]
    if not long:
        return fitted
    for _ in range(_COUNTERS):
        counter = yield from ask_counter(server, tokenizer)
        if counter is None:
            break
        if (yield from cut_prompts(fitted, long, instruction, server, context, counter, truncate)):
            return fitted
        server.counts.forget()
    if measure is not None:  # else what is too long the server will refuse
        yield from cut_uncounted(fitted, long, room, context, measure, truncate)
    return fitted


def _cut_documents(fitted: Fitted, long: Sequence[int], limit: int, counter: Counter | None) -> Flow[None]:
    if counter is None:
        cut_documents_to(fitted, long, limit)
        return
    pairs = fitted.pairs
    tokens = yield from counter.encode([pairs[i].document for i in long])
    over = {}
    for index, ids in zip(long, tokens, strict=True):
        if may_lack(ids):
            pairs[index] = replace(pairs[index], document=cut_to_bound(pairs[index].document, limit))
        elif isinstance(ids, errors.Qwen3VLLMError):
            fitted.refused[index] = ids
        elif len(ids) > limit:
            over[index] = ids[:limit]
    texts = yield from counter.decode(over.values())
    for index, text in zip(over, texts, strict=True):
        if isinstance(text, errors.Qwen3VLLMError):
            text = cut_to_bound(pairs[index].document, limit)  # there is no /detokenize
        pairs[index] = replace(pairs[index], document=text.rstrip(REPLACEMENT))
    if over:
        logger.info("cut %d of %d documents to max_tokens_per_doc=%d", len(over), len(pairs), limit)


def warn_of_cuts(lengths: Sequence[int], limit: int, total: int) -> None:
    """Log one warning if any of `total` prompts were cut to `limit` tokens; `lengths` are what these had."""
    if lengths:
        logger.warning(
            "%d of %s had to be cut so that prompts fit the server's %d tokens; the longest prompt had %d",
            len(lengths),
            counted(total, "document"),
            limit,
            max(lengths),
        )
