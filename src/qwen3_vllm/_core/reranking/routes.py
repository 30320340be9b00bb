"""Which request a pair becomes, so that exactly Qwen3's prompt reaches the model."""

from collections.abc import Mapping, Sequence
from typing import Literal

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.capabilities import ask_most_texts
from qwen3_vllm._core.context_length import ask_context
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.reranking.pairs import Pair
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.settings import Template
from qwen3_vllm._core.texts import token_bound
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import may_lack
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score_by

# How a pair travels: as it is, for the server to template; as two parts of the finished prompt; finished; or
# finished and cut, as token ids.
_MAY_BE_LONG = 300  # tokens, at most; a shorter pair is not refused for its length
Route = Literal["raw", "split", "finished", "tokens"]


def route_of(server: RerankServer, pair: Pair, task: str, template: Template) -> Route:
    """Choose how to send a pair so that exactly Qwen3's prompt reaches the model."""
    if pair.tokens is not None:
        return "tokens"
    if template == "client" and server.classifies:
        return "finished"  # no server applies a template to these
    if server.route is None:
        return "finished"
    if not server.templates:
        return "split"
    template_fits = server.takes_instruction or (server.default_right and task == prompts.DEFAULT_INSTRUCTION)
    # vLLM 0.15 refuses an empty text instead of putting it into its template.
    if template_fits and ((pair.query and pair.document) or not server.classifies):
        return "raw"
    if server.classifies:
        return "finished"
    raise errors.WrongServerError(
        f"The chat template of {server.model!r} ignores the instruction of a request, and there is no "
        "/classify to work around it: start the server without --chat-template"
    )


def call_of(server: RerankServer, route: Route, pairs: list[Pair], task: str) -> Call[Scores]:
    if route == "tokens":
        return classify(server.model, [list(pair.tokens or ()) for pair in pairs])
    if route == "finished":
        return classify(server.model, [prompts.rerank_prompt(p.query, p.document, task) for p in pairs])
    queries, documents = [pair.query for pair in pairs], [pair.document for pair in pairs]
    if route == "split":
        queries = [prompts.rerank_head(query, task) for query in queries]
        documents = [prompts.rerank_tail(document) for document in documents]
    query = queries[0] if len(set(queries)) == 1 else queries
    takes = route == "raw" and server.takes_instruction
    assert server.route is not None
    return score_by(server.route, server.model, query, documents, instruction=task if takes else None)


def shared_query(server: RerankServer, route: Route, pair: Pair) -> str:
    """The query that all pairs of a request must have; "" where they need not."""
    return pair.query if server.route == "rerank" and route in ("raw", "split") else ""


def ask_most_pairs(server: RerankServer, batch_size: int) -> Flow[int]:
    """Find out once how many pairs a request may have."""
    return server.most_texts.get(
        lambda: ask_most_texts(batch_size, lambda count: _letters(server, ["a"] * count))
    )


def find_context(
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
