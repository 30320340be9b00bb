"""RerankClient: the relevance of documents to a query, from a vLLM server of Qwen3-Reranker."""

from collections.abc import Sequence
from typing import Any

from qwen3_vllm._core.client import Client, takes_options_of
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.options import options_of
from qwen3_vllm._core.reranking.ranking import RelevanceScores, RerankResult
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.reranking.several import connect
from qwen3_vllm._core.settings import RerankSettings
from qwen3_vllm._core.telemetry.observe import Learned


class RerankClient(Client[RerankSettings]):
    """Scores and ranks documents; the options are those of `RerankSettings`, and are kept in `settings`.

    Sync and async, safe in threads, in any event loop and after a fork; nothing must be closed. Nothing is
    sent before the first call. Then the server is asked once who applies the chat template, and again when it
    has been restarted with another set-up.
    """

    _operation = "rerank"

    @takes_options_of(RerankSettings)
    def __init__(self, **options: Any) -> None:
        """Take the options of `RerankSettings`."""
        self._begin(options_of(type(self), RerankSettings, options))

    def _begin(self, settings: RerankSettings) -> None:
        self._settings = settings
        self._transport, self._flows = connect(settings)

    @takes_options_of(RerankSettings)
    def with_options(self, **changes: Any) -> "RerankClient":
        """Make a client with other options, which are checked; it asks its server again."""
        return type(self)(**{**dict(self._settings), **changes})

    def score(
        self, query: str | Sequence[str], documents: Sequence[str], *, instruction: str | None = None
    ) -> RelevanceScores:
        """Score documents.

        Args:
            query: One for all documents, or one for each.
            documents: `[]` returns shape (0,) without a request.
            instruction: The task sentence, for this call instead of the client's.

        Returns:
            float32, shape (len(documents),), in order: P(yes) in [0, 1], as Qwen's reference computes it.

        Raises:
            InputError: Texts that cannot be scored; names their indexes.
            WrongServerError: The server is not a Qwen3 reranker; says what to start instead.
            Qwen3VLLMError: What else can go wrong, see `qwen3_vllm.errors`. Whatever it is, `error.partial`
                has the scores of the other documents, and `error.errors` the failures by index.
        """
        with self._observed() as call:
            return self._transport.run(self._flows.score(query, documents, instruction), call)

    async def ascore(
        self, query: str | Sequence[str], documents: Sequence[str], *, instruction: str | None = None
    ) -> RelevanceScores:
        """Score documents; see `score`."""
        with self._observed() as call:
            return await self._transport.arun(self._flows.score(query, documents, instruction), call)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
    ) -> list[RerankResult]:
        """Rank documents, best first, ties in input order; the first `top_n` of them (None: all).

        Raises:
            Qwen3VLLMError: As `score` does.
        """
        with self._observed() as call:
            return self._transport.run(self._flows.rerank(query, documents, top_n, instruction), call)

    async def arerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
    ) -> list[RerankResult]:
        """Rank documents; see `rerank`."""
        with self._observed() as call:
            return await self._transport.arun(self._flows.rerank(query, documents, top_n, instruction), call)

    def _learned(self) -> Learned:
        server = self._flows.server.value
        return (self._settings.model if server is None else server.model), None

    def _smallest_request(self) -> Flow[object]:
        return self._flows.score("ready", ["ready"], None)


def server_of(client: RerankClient) -> RerankServer:
    """What a client knows of its server; asks it if it has not been asked."""
    return client._transport.run(client._flows.known_server())
