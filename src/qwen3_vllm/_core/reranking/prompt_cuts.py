"""Prompts cut by their tokens, as Qwen's reference cuts them.

There `<Instruct>: … <Document>: …` is one text, and loses its last tokens. Tokenising the document alone
would be one token off, since its first word joins the space before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.reranking.counting import Counter, Tokens
from qwen3_vllm._core.reranking.pairs import Fitted, Pair
from qwen3_vllm._core.reranking.probe import ask_lengths
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.texts import cut_to_bound
from qwen3_vllm._core.vllm_api.calls import TokenIds
from qwen3_vllm._core.vllm_api.error_bodies import may_lack

REPLACEMENT = "\ufffd"  # what a character cut in its middle decodes to


class _Counted(NamedTuple):
    """The tokens of long prompts, or why they cannot be counted.

    Attributes:
        task: Of the middle without query and document.
        heads: Of the middle without document, by query.
        middles: Of what stands between prefix and suffix, by index.
    """

    prefix: TokenIds
    suffix: TokenIds
    task: TokenIds
    heads: dict[str, Tokens]
    middles: dict[int, Tokens]

    @property
    def around(self) -> int:
        """Tokens of prefix and suffix."""
        return len(self.prefix) + len(self.suffix)

    def all_fit(self, context: int) -> bool:
        """Whether no prompt reaches the context, where each could be counted."""
        counted = (*self.heads.values(), *self.middles.values())
        return all(isinstance(ids, list) and self.around + len(ids) < context for ids in counted)


def cut_prompts(
    fitted: Fitted,
    long: Sequence[int],
    instruction: str,
    server: RerankServer,
    context: int,
    counter: Counter,
    truncate: bool,
) -> Flow[bool]:
    """Cut the prompts at the indexes of `long`, or refuse them; False where they are not counted at all.

    Raises:
        TooLongError: The instruction, or the one query of the call, leaves no room for a document.
    """
    counted = yield from _count(fitted.pairs, long, instruction, counter)
    if counted is None:
        return False
    if counted.all_fit(context):
        return True
    lengths = yield from server.lengths.get(lambda: ask_lengths(server, context))
    fitted.limit = lengths.limit
    if counted.around + len(counted.task) >= lengths.limit:
        tokens = counted.around + len(counted.task)
        raise errors.TooLongError(
            f"the instruction is too long: its prompt has {tokens} tokens without a query and a document; "
            f"the server takes {lengths.limit}"
        )
    kept = _cut(fitted, counted, truncate)
    if lengths.takes_tokens:
        for index, middle in kept.items():
            finished = (*counted.prefix, *middle, *counted.suffix)
            fitted.pairs[index] = replace(fitted.pairs[index], tokens=finished)
        return True
    documents = {}
    for index, middle in kept.items():
        head = counted.heads[fitted.pairs[index].query]
        assert isinstance(head, list)  # else the pair was refused
        documents[index] = middle[len(head) :]
    yield from _cut_as_text(fitted.pairs, documents, counter)
    return True


def _count(
    pairs: Sequence[Pair], long: Sequence[int], instruction: str, counter: Counter
) -> Flow[_Counted | None]:
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
    if any(map(may_lack, (prefix, suffix, task, *rest))):
        return None
    return _Counted(
        _counted(prefix),
        _counted(suffix),
        _counted(task),
        dict(zip(heads, rest[: len(heads)], strict=True)),
        dict(zip(long, rest[len(heads) :], strict=True)),
    )


def _counted(tokens: Tokens) -> TokenIds:
    if isinstance(tokens, errors.Qwen3VLLMError):
        raise tokens
    return tokens


def _cut(fitted: Fitted, counted: _Counted, truncate: bool) -> dict[int, TokenIds]:
    """Choose the tokens to keep of the middles that are too long, by index; what cannot be cut is refused."""
    room = fitted.limit - counted.around
    kept: dict[int, TokenIds] = {}
    for index, middle in counted.middles.items():
        head = counted.heads[fitted.pairs[index].query]
        if isinstance(middle, errors.Qwen3VLLMError):
            fitted.refused[index] = middle
        elif isinstance(head, errors.Qwen3VLLMError):
            fitted.refused[index] = head
        elif len(head) >= room:
            tokens = counted.around + len(head)
            why = f"its prompt has {tokens} tokens without a document; the server takes {fitted.limit}"
            fitted.refuse_query(index, why)
        elif len(middle) > room and truncate:
            fitted.cut[index] = counted.around + len(middle)
            kept[index] = middle[:room]
        elif len(middle) > room:
            tokens = counted.around + len(middle)
            fitted.refused[index] = errors.TooLongError(
                f"needs {tokens} tokens with its query; the server takes {fitted.limit}"
            )
    return kept


def _cut_as_text(pairs: list[Pair], documents: Mapping[int, TokenIds], counter: Counter) -> Flow[None]:
    """For servers that take no token ids: the same cut, but without a character that it would halve."""
    texts = yield from counter.decode(documents.values())
    for (index, tokens), text in zip(documents.items(), texts, strict=True):
        if isinstance(text, errors.Qwen3VLLMError):  # there is no /detokenize
            text = cut_to_bound(f" {pairs[index].document}", len(tokens))  # as it was counted
        pairs[index] = replace(pairs[index], document=text.removeprefix(" ").rstrip(REPLACEMENT))


def _middle(query: str, document: str, instruction: str) -> str:
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
