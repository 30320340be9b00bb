"""LlamaIndex: embedding model and node postprocessor over the core clients."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from qwen3_vllm._core.cache_keys import CacheRole
from qwen3_vllm._core.embedding.adapter import EmbeddingAdapter
from qwen3_vllm._core.embedding.client import floats_of_one
from qwen3_vllm._core.reranking.adapter import RerankAdapter, own_task
from qwen3_vllm._core.reranking.ranking import RerankResult, select
from qwen3_vllm._core.settings import BATCH_SIZE, MAX_CONCURRENCY
from qwen3_vllm._core.texts import check_list, check_text
from qwen3_vllm.errors import InputError

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
    from llama_index.core.storage.kvstore.types import BaseKVStore
    from llama_index_instrumentation import get_dispatcher
    from llama_index_instrumentation.dispatcher import Dispatcher
    from llama_index_instrumentation.event_handlers import NullEventHandler
    from llama_index_instrumentation.span_handlers import NullSpanHandler

    from qwen3_vllm.llama_index._cache import CallStore
    from qwen3_vllm.llama_index._tags import tagging_usage
except ImportError as error:
    raise ImportError(
        'qwen3_vllm.llama_index needs LlamaIndex: pip install "qwen3-vllm[llama-index]"'
    ) from error

_dispatcher = get_dispatcher(__name__)
_embedding_dispatcher = get_dispatcher(BaseEmbedding.__module__)

_ASK_SERVER = "auto"  # `model_name` of a model that the server is to name


_TWINS = {"model": "model_name", "model_name": "model"}


def _one_name(options: Any) -> Any:
    """Let `model_name`, LlamaIndex's word, stand for `model`."""
    if not isinstance(options, dict):
        return options
    names = [name for name in map(options.get, _TWINS) if name not in (None, "", _ASK_SERVER)]
    if names[1:] and names[0] != names[1]:
        raise ValueError("model and model_name are one option, and must not differ")
    name = names[0] if names else None
    return {**options, "model": name, "model_name": name or _ASK_SERVER}


class Qwen3VLLMEmbeddings(EmbeddingAdapter, BaseEmbedding):
    """Qwen3-Embedding served by vLLM, as a LlamaIndex embedding model.

    Queries get the instruction, texts do not.

    Args:
        base_url: Server's address [QWEN3_EMBEDDING_URL], default `http://127.0.0.1:8000/v1`. Several: a list,
            or with commas.
        model_name: Name at the server; None takes the first that it serves.
        embed_batch_size: Texts that LlamaIndex hands over at once where it has to follow: for a cache, a rate
            limiter, a progress bar, callbacks or instrumentation; else all. They travel in requests of
            `batch_size`, `max_concurrency` of them at once, so the default fills the server.
        num_workers: Handovers at once in async use; None for all. `max_concurrency` bounds the requests.
        instruction: Task sentence for queries.
        dimensions: Dimensions of the vectors; None for the model's own.
        embeddings_cache: Any key-value store of LlamaIndex. Its keys are `cache_namespace(role)`, a colon and
            the text, so that vectors of queries and texts, and of different models, instructions and
            dimensions, are kept apart in it.
        All others: as `EmbeddingClient` has them; docs/options.md explains each.

    Examples:
        `pip install "qwen3-vllm[llama-index]"`, and a server: `qwen3-vllm serve embedding`

        ```python
        from llama_index.core import Settings
        from qwen3_vllm.llama_index import Qwen3VLLMEmbeddings

        Settings.embed_model = Qwen3VLLMEmbeddings(base_url="http://127.0.0.1:8000/v1")
        ```
    """

    model_name: str = _ASK_SERVER
    embed_batch_size: int = Field(default=BATCH_SIZE * MAX_CONCURRENCY, gt=0, le=2048)

    _instruction: str | None = PrivateAttr(default=None)  # of one call

    _twins: ClassVar[Mapping[str, str]] = _TWINS
    _one_name = model_validator(mode="before")(_one_name)

    @field_validator("embeddings_cache")
    @classmethod
    def _check_cache(cls, store: object) -> object:
        if store is not None and not isinstance(store, BaseKVStore):
            raise ValueError("embeddings_cache must be a key-value store of LlamaIndex (BaseKVStore)")
        return store

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised objects."""
        return "Qwen3VLLMEmbeddings"

    def cache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors; asks the server, see `EmbeddingClient.cache_namespace`."""
        return self.client.cache_namespace(role, instruction=instruction)

    async def acache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors; see `cache_namespace`."""
        return await self.client.acache_namespace(role, instruction=instruction)

    def get_query_embedding(self, query: str, *, instruction: str | None = None) -> Embedding:
        """Embed a query, with the instruction, or with one of its own."""
        called = self._for_call("query", instruction)
        with tagging_usage():
            return super(Qwen3VLLMEmbeddings, called).get_query_embedding(query)

    async def aget_query_embedding(self, query: str, *, instruction: str | None = None) -> Embedding:
        """Embed a query; see `get_query_embedding`."""
        called = self._for_call("query", instruction)
        with tagging_usage():
            return await super(Qwen3VLLMEmbeddings, called).aget_query_embedding(query)

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed a text, without an instruction."""
        with tagging_usage():
            return super(Qwen3VLLMEmbeddings, self._for_call("document")).get_text_embedding(text)

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed a text; see `get_text_embedding`."""
        with tagging_usage():
            return await super(Qwen3VLLMEmbeddings, self._for_call("document")).aget_text_embedding(text)

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts, without an instruction, in order."""
        check_list(texts, "document")
        if show_progress or self._is_followed():
            called = self._for_call("document")
            with tagging_usage():
                return super(Qwen3VLLMEmbeddings, called).get_text_embedding_batch(
                    texts, show_progress, **kwargs
                )
        return self._get_text_embeddings(texts)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts; see `get_text_embedding_batch`."""
        check_list(texts, "document")
        if show_progress or self._is_followed():
            called = self._for_call("document")
            with tagging_usage():
                return await super(Qwen3VLLMEmbeddings, called).aget_text_embedding_batch(
                    texts, show_progress, **kwargs
                )
        return await self._aget_text_embeddings(texts)

    def _for_call(self, role: CacheRole, instruction: str | None = None) -> Self:
        """This model; or, where it has a cache or the call an instruction of its own, a copy for that call.

        LlamaIndex looks into `embeddings_cache` by the text alone, so the copy has a view of the store there.
        """
        if self.embeddings_cache is None and instruction is None:
            return self
        _ = self.client  # made before the copy, so that all copies share it
        called = copy.copy(self)
        called._instruction = instruction
        if self.embeddings_cache is not None:
            store = CallStore(self.embeddings_cache, self, role, instruction)
            called.__dict__["embeddings_cache"] = store  # past the checks of an assignment, which cost more
        return called

    def _is_followed(self) -> bool:
        """Whether anything sees the steps of a batch: a cache, a rate limiter, handlers of events or spans.

        Where nothing does, the steps are left out, for LlamaIndex checks and copies every number for an event
        (15 µs of CPU for a vector of 1,024).
        """
        return (
            self.embeddings_cache is not None
            or self.rate_limiter is not None
            or bool(self.callback_manager.handlers)
            or _has_handlers(_embedding_dispatcher)
        )

    def _get_query_embedding(self, query: str) -> Embedding:
        return floats_of_one(self.client.embed_queries([query], instruction=self._instruction))

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return floats_of_one(await self.client.aembed_queries([query], instruction=self._instruction))

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self.client.embed_documents_as_lists(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self.client.aembed_documents_as_lists(texts)


def _has_handlers(dispatcher: Dispatcher) -> bool:
    """Whether events or spans of a dispatcher reach anybody."""
    at: Dispatcher | None = dispatcher
    while at is not None:
        handlers = [*at.event_handlers, *at.span_handlers]
        if not all(isinstance(handler, NullEventHandler | NullSpanHandler) for handler in handlers):
            return True
        at = at.parent if at.propagate else None
    return False


class Qwen3VLLMReranker(RerankAdapter, BaseNodePostprocessor):
    """Qwen3-Reranker served by vLLM, as a LlamaIndex node postprocessor.

    Args:
        base_url: Server's address [QWEN3_RERANKER_URL], default `http://127.0.0.1:8001`. Several: a list,
            or with commas.
        model_name: Name at the server; None takes the first that it serves.
        top_n: Nodes to keep, 2 by default; None for all.
        score_threshold: Drop nodes with a lower relevance score, in [0, 1].
        combine: `(relevance_score, node_with_score) -> float`, to rank by a mix with freshness, clicks, …
        instruction: Task sentence.
        All others: as `RerankClient` has them; docs/options.md explains each.

    A node is judged by its text with the metadata meant for embedding (`MetadataMode.EMBED`). What comes back
    are copies, with what they were ranked by as `score` and P(yes) in `metadata["relevance_score"]`, which no
    prompt shows; those given stay as they are.

    Examples:
        `pip install "qwen3-vllm[llama-index]"`, and a server: `qwen3-vllm serve reranker`

        ```python
        from qwen3_vllm.llama_index import Qwen3VLLMReranker

        reranker = Qwen3VLLMReranker(base_url="http://127.0.0.1:8001", top_n=3)
        query_engine = index.as_query_engine(similarity_top_k=30, node_postprocessors=[reranker])
        ```
    """

    model_name: str = _ASK_SERVER
    top_n: int | None = Field(default=2, ge=0)
    score_threshold: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    combine: SkipJsonSchema[Callable[[float, NodeWithScore], float] | None] = Field(
        default=None, exclude=True, repr=False
    )

    _twins: ClassVar[Mapping[str, str]] = _TWINS
    _one_name = model_validator(mode="before")(_one_name)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised objects."""
        return "Qwen3VLLMReranker"

    def postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
        *,
        instruction: str | None = None,
    ) -> list[NodeWithScore]:
        """Return the most relevant nodes, best first; `instruction` is for this call."""
        return self._postprocess_nodes(nodes, _query(query_bundle, query_str), **own_task(instruction))

    async def apostprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        query_str: str | None = None,
        *,
        instruction: str | None = None,
    ) -> list[NodeWithScore]:
        """Return the most relevant nodes; see `postprocess_nodes`."""
        return await self._apostprocess_nodes(nodes, _query(query_bundle, query_str), **own_task(instruction))

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        *,
        instruction: str | None = None,
    ) -> list[NodeWithScore]:
        query, texts = _query(query_bundle), _texts(nodes)
        with tagging_usage(), self._reporting(nodes, query) as report:
            results = self.client.rerank(query.query_str, texts, instruction=instruction)
            return report(self._selected(results, nodes))

    async def _apostprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
        *,
        instruction: str | None = None,
    ) -> list[NodeWithScore]:
        query, texts = _query(query_bundle), _texts(nodes)
        with tagging_usage(), self._reporting(nodes, query) as report:
            results = await self.client.arerank(query.query_str, texts, instruction=instruction)
            return report(self._selected(results, nodes))

    @contextmanager
    def _reporting(
        self, nodes: list[NodeWithScore], query: QueryBundle
    ) -> Iterator[Callable[[list[NodeWithScore]], list[NodeWithScore]]]:
        """Open LlamaIndex's two kinds of rerank events, and close both whatever happens."""
        top_n = len(nodes) if self.top_n is None else self.top_n
        kept: list[NodeWithScore] = []

        def report(chosen: list[NodeWithScore]) -> list[NodeWithScore]:
            kept.extend(chosen)
            return chosen

        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=self.model_name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model_name,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: top_n,
        }
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield report
                event.on_end(payload={EventPayload.NODES: kept})
        finally:
            _dispatcher.event(ReRankEndEvent(nodes=kept))

    def _selected(self, results: list[RerankResult], nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        chosen = select(
            results,
            nodes,
            top_n=self.top_n,
            score_threshold=self.score_threshold,
            combine=self.combine,
        )
        return [
            _with_score(nodes[result.index], result.relevance_score, ranked_by)
            for result, ranked_by in chosen
        ]


def _query(query_bundle: QueryBundle | None, query_str: str | None = None) -> QueryBundle:
    if query_bundle is not None and query_str is not None:
        raise InputError("pass query_bundle or query_str, not both")
    if query_str is not None:
        if not isinstance(query_str, str):
            check_text(query_str, "the query")  # the client checks the rest
        return QueryBundle(query_str)
    if query_bundle is None:
        raise InputError("reranking needs a query: pass query_bundle or query_str")
    if not isinstance(query_bundle, QueryBundle):
        raise InputError(f"query_bundle is a {type(query_bundle).__name__}; pass a string as query_str")
    return query_bundle


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    check_list(nodes, "node")
    for index, node in enumerate(nodes):
        if not isinstance(node, NodeWithScore):
            raise InputError(f"node {index} is not a NodeWithScore but {type(node).__name__}")
    return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _with_score(node: NodeWithScore, relevance_score: float, ranked_by: float) -> NodeWithScore:
    name = "relevance_score"
    copied = node.node.model_copy(
        update={
            "metadata": {**node.node.metadata, name: relevance_score},
            "excluded_embed_metadata_keys": _with(node.node.excluded_embed_metadata_keys, name),
            "excluded_llm_metadata_keys": _with(node.node.excluded_llm_metadata_keys, name),
        }
    )
    return NodeWithScore(node=copied, score=ranked_by)


def _with(keys: list[str], name: str) -> list[str]:
    return keys if name in keys else [*keys, name]
