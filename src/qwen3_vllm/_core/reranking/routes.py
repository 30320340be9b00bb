"""Which request a pair becomes, so that exactly Qwen3's prompt reaches the model. Pure."""

from typing import Literal

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.reranking.probe import RerankServer
from qwen3_vllm._core.reranking.truncation import Pair
from qwen3_vllm._core.settings import Template
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score

# How a pair travels: as it is, for the server to template; as two parts of the finished prompt; finished; or
# finished and cut, as token ids.
Route = Literal["raw", "split", "finished", "tokens"]


def route_of(server: RerankServer, pair: Pair, task: str, template: Template) -> Route:
    """Choose how to send a pair so that exactly Qwen3's prompt reaches the model."""
    if pair.tokens is not None:
        return "tokens"
    if template == "client" and server.classifies:
        return "finished"  # no server applies a template to these
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
    return score(server.model, query, documents, instruction=task if takes else None)
