"""What failures say of a server: found out by small requests that are known to be good, then tried again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from qwen3_vllm import errors
from qwen3_vllm._core.batching.division import was_divided
from qwen3_vllm._core.discovery.capabilities import ask_most_texts
from qwen3_vllm._core.discovery.context_length import ask_context
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.texts import token_bound
from qwen3_vllm._core.vllm_api.error_bodies import context_in, is_too_long, may_lack

_MAY_BE_LONG = 400  # tokens, at most; a shorter text is not refused for its length


@dataclass(frozen=True, slots=True)
class Lesson:
    """What failures have taught.

    Attributes:
        server: What the server is.
        again: The texts to send again, by index.
        known_good: It is what it was, and takes other texts: some of these are at fault.
    """

    server: EmbeddingServer
    again: list[int]
    known_good: bool = False


def ask_most(server: EmbeddingServer, most: int) -> Flow[int]:
    """Find out how many texts a request may have, after one was refused; `most` if so many are taken."""
    server.most_texts.forget()
    return server.most_texts.get(lambda: ask_most_texts(most, lambda count: server.question(["a"] * count)))


def relearn(
    server: EmbeddingServer,
    failures: Mapping[int, errors.Qwen3VLLMError],
    texts: Sequence[str],
    ask_again: Callable[[], Flow[EmbeddingServer]],
    before: Sequence[Lesson],
    *,
    truncate: bool,
) -> Flow[Lesson | None]:
    """Look whether a server is other than it was taken for.

    Args:
        failures: By index into `texts`.
        ask_again: Asks what the server is, as before the first request.
        before: What this call's earlier failures have taught.

    Returns:
        None where sending again would not help.
    """
    if truncate:
        too_long = [index for index, error in failures.items() if is_too_long(error)]
        lengths = [length for index in too_long if (length := context_in(failures[index]))]
        if too_long and (lengths or server.context):
            return Lesson(_with_context(server, min(lengths, default=server.context)), too_long)
    if any(lesson.known_good for lesson in before):
        return None
    doubtful = [index for index, error in failures.items() if may_lack(error) and not is_too_long(error)]
    if not doubtful:
        return None
    try:
        found = yield from ask_again()
    except errors.Qwen3VLLMError:
        return None  # what failed is the error
    if found.root != server.root or (found.cuts == server.cuts and found.width != server.width):
        return None  # another model: its vectors do not go with those of this call
    if found != server:
        return Lesson(found, doubtful)
    found.most_texts.value = server.most_texts.value
    bounds = [bound for index in doubtful if (bound := token_bound(texts[index])) > _MAY_BE_LONG]
    if truncate and bounds and found.context and not before:
        return Lesson(found, doubtful)  # who counts and who cuts is asked again
    if truncate and bounds:
        context = yield from ask_context(min(bounds), lambda tokens: found.question([" a" * tokens]))
        if context is not None:
            return Lesson(_with_context(found, context), doubtful)  # short ones were in the same requests
    whole = [index for index in doubtful if not was_divided(failures[index])]
    return Lesson(found, whole, known_good=True) if len(whole) > 1 else None


def _with_context(server: EmbeddingServer, context: int | None) -> EmbeddingServer:
    if context != server.context:
        server.limit.forget()
    else:
        server.cuts_inputs.forget()  # it may no longer cut what it was left to cut
    return replace(server, context=context)
