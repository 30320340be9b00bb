"""What failures say of a server: found out by small requests that are known to be good, then tried again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from qwen3_vllm import errors
from qwen3_vllm._core.capabilities import ask_most_texts
from qwen3_vllm._core.context_length import ask_context
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.texts import token_bound
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.embeddings import Vectors, embed
from qwen3_vllm._core.vllm_api.error_bodies import context_in, is_too_long, may_lack

_MAY_BE_LONG = 400  # tokens, at most; a shorter text is not refused for its length


def ask_most(server: EmbeddingServer, batch_size: int) -> Flow[int]:
    """Find out once how many texts a request may have."""

    def letters(count: int) -> Call[Vectors]:
        return embed(server.model, ["a"] * count, encoding=server.encoding, dtype=server.dtype)

    return server.most_texts.get(lambda: ask_most_texts(batch_size, letters))


def relearn(
    server: EmbeddingServer,
    failures: Mapping[int, errors.Qwen3VLLMError],
    texts: Sequence[str],
    ask_again: Callable[[], Flow[EmbeddingServer]],
    *,
    truncate: bool,
    batch_size: int,
) -> Flow[tuple[EmbeddingServer, list[int]] | None]:
    """Look whether a server is other than it was taken for.

    Args:
        failures: By index into `texts`.
        ask_again: Asks what the server is, as before the first request.

    Returns:
        What it is, and the texts to send again; None where that would not help.
    """
    if truncate:
        too_long = [index for index, error in failures.items() if is_too_long(error)]
        lengths = [length for index in too_long if (length := context_in(failures[index]))]
        if too_long and (lengths or server.context):
            return _with_context(server, min(lengths, default=server.context)), too_long
    doubtful = [index for index, error in failures.items() if may_lack(error) and not is_too_long(error)]
    if not doubtful:
        return None
    try:
        found = yield from ask_again()
    except errors.Qwen3VLLMError:
        return None  # what failed is the error
    if (found.width, found.root) != (server.width, server.root):
        return None  # another model: its vectors do not go with those of this call
    if found != server or (yield from ask_most(found, batch_size)) < batch_size:
        return found, doubtful
    long = [index for index in doubtful if token_bound(texts[index]) > _MAY_BE_LONG]
    if truncate and long:
        bound = min(token_bound(texts[index]) for index in long)
        context = yield from ask_context(
            bound, lambda tokens: embed(found.model, [" a" * tokens], encoding="base64")
        )
        if context is not None:
            return _with_context(found, context), long
    return None


def _with_context(server: EmbeddingServer, context: int | None) -> EmbeddingServer:
    if context != server.context:
        server.limit.forget()
    return replace(server, context=context)
