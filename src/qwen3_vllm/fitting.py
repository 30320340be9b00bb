"""Cut documents so that their prompts fit the server's context, as Qwen's reference cuts them."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from qwen3_vllm import errors, prompts, wire
from qwen3_vllm.batching import Failures, token_bound
from qwen3_vllm.probing import RerankServer
from qwen3_vllm.transport import Flow, send

logger = logging.getLogger(__name__)

_REPLACEMENT = "\ufffd"  # what a character cut in its middle decodes to


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing to score, control tokens neutralised. `tokens`: the finished prompt, cut to the context."""

    query: str
    document: str
    tokens: tuple[int, ...] | None = None


def fit(
    pairs: list[Pair],
    instruction: str,
    server: RerankServer,
    *,
    max_tokens_per_doc: int | None,
    truncate: bool,
) -> Flow[tuple[list[Pair], Failures]]:
    """Cut what is too long; only the document loses tokens. Short pairs cost no request.

    Args:
        max_tokens_per_doc: Tokens of a document alone, whole characters, as vLLM's field of that name.
        truncate: False refuses pairs longer than the context instead of cutting them.

    Returns:
        The pairs, in order, and why some cannot be sent, by index.
    """
    pairs = list(pairs)
    refused: Failures = {}
    shortened: set[int] = set()
    if max_tokens_per_doc is not None:
        long = [i for i, pair in enumerate(pairs) if token_bound(pair.document) > max_tokens_per_doc]
        shortened |= yield from _cut_documents(pairs, long, max_tokens_per_doc, server, refused)
    if server.context is not None:
        overhead = (
            token_bound(prompts.rerank_prompt("", "", "")) if server.overhead is None else server.overhead
        )
        room = server.context - overhead - token_bound(instruction)
        long = [
            i
            for i, pair in enumerate(pairs)
            if i not in refused and token_bound(pair.query) + token_bound(pair.document) > room
        ]
        shortened |= yield from _cut_prompts(pairs, long, instruction, server, refused, truncate)
    if shortened:
        logger.info("cut %d of %d documents to fit", len(shortened), len(pairs))
    return pairs, refused


def _cut_documents(
    pairs: list[Pair], long: list[int], limit: int, server: RerankServer, refused: Failures
) -> Flow[set[int]]:
    tokens = yield from _tokenize(server, [pairs[i].document for i in long])
    over = {}
    for index, ids in zip(long, tokens, strict=True):
        if isinstance(ids, errors.Qwen3VLLMError):
            refused[index] = ids
        elif len(ids) > limit:
            over[index] = ids[:limit]
    texts = yield from send(*(wire.detokenize(server.model, ids) for ids in over.values()))
    for index, text in zip(over, texts, strict=True):
        if isinstance(text, errors.Qwen3VLLMError):
            refused[index] = text
        else:
            pairs[index] = replace(pairs[index], document=text.rstrip(_REPLACEMENT))
    return set(over)


def _cut_prompts(
    pairs: list[Pair],
    long: list[int],
    instruction: str,
    server: RerankServer,
    refused: Failures,
    truncate: bool,
) -> Flow[set[int]]:
    """Cut as the reference: `<Instruct>: … <Document>: …` is one text, and loses its last tokens.

    Tokenising the document alone would be one token off, since its first word joins the space before it.
    """
    if not long or server.context is None:
        return set()
    heads = {pairs[i].query: _middle(pairs[i].query, "", instruction).rstrip(" ") for i in long}
    prefix, suffix, *rest = yield from _tokenize(
        server,
        [
            prompts.RERANK_PREFIX,
            prompts.RERANK_SUFFIX,
            *heads.values(),
            *(_middle(pairs[i].query, pairs[i].document, instruction) for i in long),
        ],
    )
    if isinstance(prefix, errors.RouteNotFoundError):
        return set()  # nobody counts here; what is too long the server will refuse
    for fixed in (prefix, suffix):
        if isinstance(fixed, errors.Qwen3VLLMError):
            raise fixed
    assert isinstance(prefix, list) and isinstance(suffix, list)
    head_tokens = dict(zip(heads, rest[: len(heads)], strict=True))  # errors too, met below
    room = server.context - len(prefix) - len(suffix)
    cut: dict[int, wire.TokenIds] = {}
    for index, middle in zip(long, rest[len(heads) :], strict=True):
        head = head_tokens[pairs[index].query]
        if isinstance(middle, errors.Qwen3VLLMError):
            refused[index] = middle
        elif isinstance(head, errors.Qwen3VLLMError):
            refused[index] = head
        elif len(middle) <= room:
            continue
        elif not truncate or len(head) >= room:
            needed = len(prefix) + len(middle) + len(suffix)
            why = "" if not truncate else "; its query and instruction alone fill them"
            refused[index] = errors.TooLongError(
                f"needs {needed} tokens with its query; the server takes {server.context}{why}"
            )
        else:
            cut[index] = middle[:room]
    if server.takes_tokens:
        for index, middle in cut.items():
            pairs[index] = replace(pairs[index], tokens=(*prefix, *middle, *suffix))
    else:
        lengths = {query: len(ids) for query, ids in head_tokens.items() if isinstance(ids, list)}
        documents = {index: tokens[lengths[pairs[index].query] :] for index, tokens in cut.items()}
        yield from _cut_as_text(pairs, documents, server, refused)
    return set(cut)


def _cut_as_text(
    pairs: list[Pair], documents: dict[int, wire.TokenIds], server: RerankServer, refused: Failures
) -> Flow[None]:
    """For servers that take no token ids: the same cut, but without a character that it would halve."""
    texts = yield from send(*(wire.detokenize(server.model, tokens) for tokens in documents.values()))
    for index, text in zip(documents, texts, strict=True):
        if isinstance(text, errors.Qwen3VLLMError):
            refused[index] = text
        else:
            document = text.removeprefix(" ").rstrip(_REPLACEMENT)
            pairs[index] = replace(pairs[index], document=document)


def _middle(query: str, document: str, instruction: str) -> str:
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"


def _tokenize(
    server: RerankServer, texts: Iterable[str]
) -> Flow[list[wire.TokenIds | errors.Qwen3VLLMError]]:
    return send(*(wire.tokenize(server.model, text, add_special_tokens=False) for text in texts))
