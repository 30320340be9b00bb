"""EmbeddingClient: texts in, L2-normalised vectors out, from a vLLM server of Qwen3-Embedding."""

from collections.abc import Sequence
from typing import Any

from qwen3_vllm._core.cache_keys import CacheRole
from qwen3_vllm._core.client import Client, takes_options_of
from qwen3_vllm._core.embedding.collect import Collector, Lists
from qwen3_vllm._core.embedding.flows import EmbeddingFlows, Report
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.embedding.several import connect
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.options import options_of
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.telemetry.observe import Learned
from qwen3_vllm._core.vllm_api.embeddings import Vectors


class EmbeddingClient(Client[EmbeddingSettings]):
    """Embeds queries and documents; the options are those of `EmbeddingSettings`, and are kept in `settings`.

    Sync and async, safe in threads, in any event loop and after a fork; nothing must be closed. Nothing is
    sent before the first call.
    """

    _operation = "embeddings"

    @takes_options_of(EmbeddingSettings)
    def __init__(self, **options: Any) -> None:
        """Take the options of `EmbeddingSettings`."""
        self._begin(options_of(type(self), EmbeddingSettings, options))

    def _begin(self, settings: EmbeddingSettings) -> None:
        self._settings = settings
        self._transport, self._flows = connect(settings)

    @takes_options_of(EmbeddingSettings)
    def with_options(self, **changes: Any) -> "EmbeddingClient":
        """Make a client with other options, which are checked; it asks its server again."""
        return type(self)(**{**dict(self._settings), **changes})

    def embed_queries(
        self, texts: Sequence[str], *, instruction: str | Sequence[str] | None = None
    ) -> Vectors:
        """Embed queries, each with the instruction before it.

        Args:
            texts: Queries. `[]` returns shape (0, dimensions or 0) without a request.
            instruction: For this call instead of the client's: one, or one for each query. `""` embeds
                queries bare.

        Returns:
            float32, shape (len(texts), dimensions), in order, L2-normalised rows.

        Raises:
            InputError: Texts that cannot be embedded; names their indexes.
            Qwen3VLLMError: What else can go wrong, see `qwen3_vllm.errors`. Whatever it is, `error.partial`
                has the vectors of the texts that were embedded, and `error.errors` the failures by index.
        """
        with self._observed() as call:
            return self._transport.run(self._flows.embed_queries(texts, instruction), call).vectors

    async def aembed_queries(
        self, texts: Sequence[str], *, instruction: str | Sequence[str] | None = None
    ) -> Vectors:
        """Embed queries; see `embed_queries`."""
        with self._observed() as call:
            return (await self._transport.arun(self._flows.embed_queries(texts, instruction), call)).vectors

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Embed documents, without an instruction; shape, order and errors as in `embed_queries`.

        Texts that occur more than once are sent once. `show_progress` draws a bar on standard error.
        """
        collector = Collector(show_progress=show_progress)
        with self._observed() as call:
            return self._transport.run(self._flows.embed_documents(texts, collector), call).vectors

    async def aembed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Vectors:
        """Embed documents; see `embed_documents`."""
        collector = Collector(show_progress=show_progress)
        with self._observed() as call:
            return (await self._transport.arun(self._flows.embed_documents(texts, collector), call)).vectors

    def embed_documents_as_lists(self, texts: Sequence[str], *, show_progress: bool = False) -> Lists:
        """Embed documents into lists of floats, as frameworks need them; otherwise as `embed_documents`.

        Floats cost about 15 µs per vector of 1,024 dimensions, made while other requests are under way.
        """
        collector = Collector(as_lists=True, show_progress=show_progress)
        with self._observed() as call:
            return self._transport.run(self._flows.embed_documents(texts, collector), call).lists

    async def aembed_documents_as_lists(self, texts: Sequence[str], *, show_progress: bool = False) -> Lists:
        """Embed documents into lists of floats; see `embed_documents_as_lists`."""
        collector = Collector(as_lists=True, show_progress=show_progress)
        with self._observed() as call:
            return (await self._transport.arun(self._flows.embed_documents(texts, collector), call)).lists

    def cache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors, so that no lookup returns a vector of another kind.

        Different for queries and documents, models, checkpoints, dimensions and, for queries, instructions.
        The server is asked once what it serves, so it must be running.

        Args:
            role: "query" or "document".
            instruction: Of calls with one of their own; None: the client's.

        Returns:
            Letters, digits, `_`, `.` and `-`, under 100: fit for files, tables, and key prefixes.
        """
        return self._transport.run(self._flows.cache_namespace(role, instruction))

    async def acache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors; see `cache_namespace`."""
        return await self._transport.arun(self._flows.cache_namespace(role, instruction))

    def _learned(self) -> Learned:
        server, settings = self._flows.server.value, self._settings
        if server is None:
            return settings.model, settings.dimensions
        return server.model, settings.dimensions or server.width

    def _smallest_request(self) -> Flow[object]:
        return self._flows.embed_documents(["ready"], Collector())


def server_of(client: EmbeddingClient) -> EmbeddingServer:
    """What a client knows of its server; asks it if it has not been asked."""
    return client._transport.run(client._flows.known_server())


def pinned(client: EmbeddingClient, model: str) -> EmbeddingClient:
    """The same client for one model only: both count together, and share the limit of one server."""
    if client.settings.model == model:
        return client
    other = client.with_options(model=model)
    if isinstance(client._transport, Transport):
        other._transport = client._transport
        other._flows = EmbeddingFlows(other.settings, client._transport)
    else:
        other._transport.count_in(client._transport.usage)
    return other


async def aembed_reporting(client: EmbeddingClient, texts: Sequence[str], report: Report) -> Vectors:
    """Embed documents; what was cut goes to `report` instead of the log."""
    with client._observed() as call:
        flow = client._flows.embed_documents(texts, Collector(), report)
        return (await client._transport.arun(flow, call)).vectors


def floats_of_one(vectors: Vectors) -> list[float]:
    """The components of the vector of one query."""
    numbers: list[float] = vectors[0].tolist()
    return numbers
