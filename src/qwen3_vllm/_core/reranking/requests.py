"""Which requests the pairs of a call become, so that exactly Qwen3's prompt reaches the model. Pure."""

from collections.abc import Collection, Iterable

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.batching.batches import plan
from qwen3_vllm._core.reranking.pairs import Fitted, Pair, Route
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.settings import Template
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.scores import Scores, classify, score_by


class Requests:
    """The requests of those pairs that can be sent; all pairs of one go the same way.

    /v1/rerank takes one query per request.

    Attributes:
        count: Pairs to send.
    """

    def __init__(self, server: RerankServer, fitted: Fitted, task: str, template: Template) -> None:
        self._server = server
        self._pairs = fitted.pairs
        self._task = task
        routes: dict[Route, list[int]] = {}
        for index, pair in enumerate(fitted.pairs):
            if index not in fitted.refused:
                routes.setdefault(_route_of(server, pair, task, template), []).append(index)
        self._route = {index: route for route, indexes in routes.items() for index in indexes}
        self._groups = list(routes.values())
        if server.route == "rerank":
            self._groups = [group for indexes in self._groups for group in self._by_query(indexes)]
        self.count = len(self._route)

    def _by_query(self, indexes: list[int]) -> Collection[list[int]]:
        """Part pairs that go one way, where the way takes one query per request."""
        if self._route[indexes[0]] not in ("raw", "split"):
            return [indexes]
        groups: dict[str, list[int]] = {}
        for index in indexes:
            groups.setdefault(self._pairs[index].query, []).append(index)
        return groups.values()

    def batches(self, max_count: int, only: Collection[int] | None = None) -> list[list[int]]:
        """Group what can be sent, by index. `only`: of these pairs; None for all."""
        sizes = [len(pair.document) for pair in self._pairs]
        batches: list[list[int]] = []
        for indexes in self._groups:
            wanted = indexes if only is None else [index for index in indexes if index in only]
            batches += plan(wanted, sizes, max_count)
        return batches

    def routes_of(self, indexes: Iterable[int]) -> set[Route]:
        """The ways that some pairs go."""
        return {self._route[index] for index in indexes}

    def call(self, batch: list[int]) -> Call[Scores]:
        """Ask for the scores of one batch."""
        pairs = [self._pairs[index] for index in batch]
        return _call_of(self._server, self._route[batch[0]], pairs, self._task)


def call_of_one(server: RerankServer, pair: Pair, task: str, template: Template) -> Call[Scores]:
    """Ask for the score of one pair, as it would be sent."""
    return _call_of(server, _route_of(server, pair, task, template), [pair], task)


def _route_of(server: RerankServer, pair: Pair, task: str, template: Template) -> Route:
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
        f"The instruction of a request has no effect on {server.model!r}: its chat template, or a gateway "
        "before it, leaves it out, and there is no /classify to work around that. Start the server without "
        "--chat-template, or let the gateway pass on the field instruction"
    )


def _call_of(server: RerankServer, route: Route, pairs: list[Pair], task: str) -> Call[Scores]:
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
