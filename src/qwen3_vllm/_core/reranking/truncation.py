"""Cut documents so that their prompts fit the server's context, as Qwen's reference cuts them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.capabilities import try_all
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.reranking.counting import Counter, ask_counter
from qwen3_vllm._core.reranking.pairs import Fitted, Pair
from qwen3_vllm._core.reranking.probe import ask_lengths
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.texts import Failures, cut_to_bound, token_bound
from qwen3_vllm._core.vllm_api.calls import Call, TokenIds
from qwen3_vllm._core.vllm_api.scores import Scores

logger = logging.getLogger(__name__)

_SHORTEST = "a"
_MERGED = 4  # tokens that a document may need more beside its query than alone
_LEAST_BYTES = 16  # of a document that are kept whatever the bytes of its query
_REPLACEMENT = "\ufffd"  # what a character cut in its middle decodes to


def fit(
    pairs: list[Pair],
    instruction: str,
    server: RerankServer,
    *,
    max_tokens_per_doc: int | None,
    truncate: bool,
    tokenizer: str | None = None,
    measure: Callable[[Pair], Call[Scores]] | None = None,
) -> Flow[Fitted]:
    """Cut what is too long; only the document loses tokens. Short pairs cost no request.

    Args:
        max_tokens_per_doc: Tokens of a document alone, whole characters, as vLLM's field of that name.
        truncate: False refuses pairs longer than the context instead of cutting them.
        tokenizer: Counts where the server does not.
        measure: Scores a pair as it will be. Given where the server has refused the pairs for their length:
            they are cut even where nobody counts tokens.

    Raises:
        TooLongError: The instruction, or the one query of all pairs, leaves no room for a document.
    """
    pairs = list(pairs)
    refused: Failures = {}
    if max_tokens_per_doc is not None:
        long = [i for i, pair in enumerate(pairs) if token_bound(pair.document) > max_tokens_per_doc]
        if long:
            counter = yield from ask_counter(server, tokenizer)
            yield from _cut_documents(pairs, long, max_tokens_per_doc, counter, refused)
    if server.context is None:
        return Fitted(pairs, refused, {})
    overhead = token_bound(prompts.rerank_prompt("", "", "")) if server.overhead is None else server.overhead
    room = server.context - 1 - overhead - token_bound(instruction)  # all servers take one token less
    long = [
        i
        for i, pair in enumerate(pairs)
        if i not in refused and token_bound(pair.query) + token_bound(pair.document) > room
    ]
    if not long:
        return Fitted(pairs, refused, {})
    counter = yield from ask_counter(server, tokenizer)
    if counter is not None:
        return (
            yield from _cut_prompts(
                pairs, long, instruction, server, counter, server.context, refused, truncate
            )
        )
    if measure is None:
        return Fitted(pairs, refused, {})  # what is too long the server will refuse
    room = server.context - 1 - overhead - token_bound(instruction)
    yield from _cut_uncounted(pairs, long, room, server.context, measure, refused, truncate)
    return Fitted(pairs, refused, {}, server.context)


def _cut_uncounted(
    pairs: list[Pair],
    long: list[int],
    room: int,
    context: int,
    measure: Callable[[Pair], Call[Scores]],
    refused: Failures,
    truncate: bool,
) -> Flow[None]:
    """Cut documents by their bytes, so that they surely fit, where nobody counts tokens.

    What a query needs is known from its prompt with the shortest document, where tokens are reported.

    Args:
        room: Tokens for query and document, at least.
    """
    queries = list(dict.fromkeys(pairs[index].query for index in long))
    answers = yield from try_all(*(measure(Pair(query, _SHORTEST)) for query in queries))
    rooms: dict[str, int] = {}
    for query, answer in zip(queries, answers, strict=True):
        if isinstance(answer, errors.Qwen3VLLMError):
            why = f"too long: with a document of one letter its prompt exceeds the server's {context} tokens"
            if len({pair.query for pair in pairs}) == 1:
                raise errors.TooLongError(f"the query is {why}") from answer
            refused |= {
                i: errors.TooLongError(f"has a query that is {why}") for i in long if pairs[i].query == query
            }
            continue
        surely = room - token_bound(query)
        counted = answer.prompt_tokens
        rooms[query] = max(surely, context - counted - _MERGED if counted else _LEAST_BYTES)
    if not truncate:
        return
    shortened = 0
    for index in long:
        pair = pairs[index]
        if pair.query in rooms and token_bound(pair.document) > rooms[pair.query]:
            pairs[index] = replace(pair, document=cut_to_bound(pair.document, rooms[pair.query]))
            shortened += 1
    if shortened:
        logger.warning(
            "%d documents were cut by their bytes, shorter than need be, to fit the server's %d tokens: it "
            "has no /tokenize to count with; pass tokenizer to cut them exactly",
            shortened,
            context,
        )


def _cut_documents(
    pairs: list[Pair], long: list[int], limit: int, counter: Counter | None, refused: Failures
) -> Flow[None]:
    if counter is None:
        for index in long:
            pairs[index] = replace(pairs[index], document=cut_to_bound(pairs[index].document, limit))
        logger.warning(
            "%d documents were cut by their bytes, shorter than need be, to max_tokens_per_doc=%d: the "
            "server has no /tokenize to count with; pass tokenizer to cut them exactly",
            len(long),
            limit,
        )
        return
    tokens = yield from counter.encode([pairs[i].document for i in long])
    over = {}
    for index, ids in zip(long, tokens, strict=True):
        if isinstance(ids, errors.Qwen3VLLMError):
            refused[index] = ids
        elif len(ids) > limit:
            over[index] = ids[:limit]
    texts = yield from counter.decode(over.values())
    for index, text in zip(over, texts, strict=True):
        if isinstance(text, errors.Qwen3VLLMError):
            text = cut_to_bound(pairs[index].document, limit)  # there is no /detokenize
        pairs[index] = replace(pairs[index], document=text.rstrip(_REPLACEMENT))
    if over:
        logger.info("cut %d of %d documents to max_tokens_per_doc=%d", len(over), len(pairs), limit)


def _cut_prompts(
    pairs: list[Pair],
    long: list[int],
    instruction: str,
    server: RerankServer,
    counter: Counter,
    context: int,
    refused: Failures,
    truncate: bool,
) -> Flow[Fitted]:
    """Cut as the reference: `<Instruct>: … <Document>: …` is one text, and loses its last tokens.

    Tokenising the document alone would be one token off, since its first word joins the space before it.
    """
    heads = {pairs[i].query: _middle(pairs[i].query, "", instruction).rstrip(" ") for i in long}
    prefix, suffix, task, *rest = yield from counter.encode(
        [
            prompts.RERANK_PREFIX,
            prompts.RERANK_SUFFIX,
            _middle("", "", instruction),
            *heads.values(),
            *(_middle(pairs[i].query, pairs[i].document, instruction) for i in long),
        ],
    )
    for fixed in (prefix, suffix, task):
        if isinstance(fixed, errors.Qwen3VLLMError):
            raise fixed
    assert isinstance(prefix, list) and isinstance(suffix, list) and isinstance(task, list)
    around = len(prefix) + len(suffix)
    longest = max((around + len(ids) for ids in rest if isinstance(ids, list)), default=0)
    if longest < context and not any(isinstance(ids, errors.Qwen3VLLMError) for ids in rest):
        return Fitted(pairs, refused, {})
    lengths = yield from server.lengths.get(lambda: ask_lengths(server, context))
    room = lengths.limit - around
    if len(task) >= room:
        raise errors.TooLongError(
            f"the instruction is too long: its prompt has {around + len(task)} tokens without a query and a "
            f"document; the server takes {lengths.limit}"
        )
    head_tokens = dict(zip(heads, rest[: len(heads)], strict=True))  # errors too, met below
    cut: dict[int, TokenIds] = {}
    needed: dict[int, int] = {}
    one_query = len({pair.query for pair in pairs}) == 1
    for index, middle in zip(long, rest[len(heads) :], strict=True):
        head = head_tokens[pairs[index].query]
        if isinstance(middle, errors.Qwen3VLLMError):
            refused[index] = middle
        elif isinstance(head, errors.Qwen3VLLMError):
            refused[index] = head
        elif len(head) >= room:
            why = (
                f"too long: its prompt has {around + len(head)} tokens without a document; the server takes "
                f"{lengths.limit}"
            )
            if one_query:
                raise errors.TooLongError(f"the query is {why}")
            refused[index] = errors.TooLongError(f"has a query that is {why}")
        elif len(middle) > room:
            needed[index] = around + len(middle)
            if truncate:
                cut[index] = middle[:room]
            else:
                refused[index] = errors.TooLongError(
                    f"needs {needed[index]} tokens with its query; the server takes {lengths.limit}"
                )
    if lengths.takes_tokens:
        for index, middle in cut.items():
            pairs[index] = replace(pairs[index], tokens=(*prefix, *middle, *suffix))
    else:
        documents = {
            index: middle[len(head) :]
            for index, middle in cut.items()
            if isinstance(head := head_tokens[pairs[index].query], list)
        }
        yield from _cut_as_text(pairs, documents, counter)
    return Fitted(pairs, refused, {index: needed[index] for index in cut}, lengths.limit)


def _cut_as_text(pairs: list[Pair], documents: dict[int, TokenIds], counter: Counter) -> Flow[None]:
    """For servers that take no token ids: the same cut, but without a character that it would halve."""
    texts = yield from counter.decode(documents.values())
    for (index, tokens), text in zip(documents.items(), texts, strict=True):
        if isinstance(text, errors.Qwen3VLLMError):  # there is no /detokenize
            text = cut_to_bound(pairs[index].document, len(tokens))
        pairs[index] = replace(pairs[index], document=text.removeprefix(" ").rstrip(_REPLACEMENT))


def _middle(query: str, document: str, instruction: str) -> str:
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"


def warn_of_cuts(lengths: Sequence[int], limit: int, total: int) -> None:
    """Log one warning if any of `total` prompts were cut to `limit` tokens; `lengths` are what these had."""
    if lengths:
        logger.warning(
            "%d of %d documents were cut so that their prompts fit the server's %d tokens; the longest "
            "prompt had %d",
            len(lengths),
            total,
            limit,
            max(lengths),
        )
