"""LangChain: Embeddings, document compressor, cross-encoder and two-stage retriever over the core clients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.json_schema import SkipJsonSchema

from qwen3_vllm._core.cache_keys import CacheRole
from qwen3_vllm._core.embedding.adapter import EmbeddingAdapter
from qwen3_vllm._core.embedding.client import floats_of_one
from qwen3_vllm._core.options import Options
from qwen3_vllm._core.reranking.adapter import RerankAdapter, own_task
from qwen3_vllm._core.reranking.ranking import RerankResult, select
from qwen3_vllm._core.texts import check_list
from qwen3_vllm._core.usage import count_usage
from qwen3_vllm.errors import ConfigurationError, InputError

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        BaseCallbackManager,
        CallbackManagerForRetrieverRun,
        Callbacks,
        adispatch_custom_event,
        dispatch_custom_event,
    )
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever, RetrieverLike
    from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, ensure_config, patch_config
except ImportError as error:
    raise ImportError('qwen3_vllm.langchain needs LangChain: pip install "qwen3-vllm[langchain]"') from error

USAGE_EVENT = "qwen3_vllm.usage"  # of the reranker, with the fields of a `Usage`


class Qwen3VLLMEmbeddings(EmbeddingAdapter, Embeddings):
    """Qwen3-Embedding served by vLLM, as LangChain Embeddings.

    Setup:
        Install `qwen3-vllm[langchain]` and start a server: `qwen3-vllm serve embedding`.

    Key init args:
        base_url: Server's address [QWEN3_EMBEDDING_URL], default `http://127.0.0.1:8000/v1`. Several: a list,
            or with commas.
        model: Name at the server; None takes the first that it serves.
        instruction: Task sentence for queries; documents have no instruction.
        dimensions: Dimensions of the vectors; None for the model's own.
        show_progress: Draw a bar while documents are embedded.
        All others: as `EmbeddingClient` has them; docs/options.md explains each.

    Instantiate:
        >>> embeddings = Qwen3VLLMEmbeddings(base_url="http://127.0.0.1:8000/v1")

    Embed:
        >>> vector = embeddings.embed_query("What is the capital of China?")  # doctest: +SKIP
        >>> vectors = embeddings.embed_documents(["The capital of China is Beijing."])  # doctest: +SKIP
        >>> vector = await embeddings.aembed_query("What is gravity?")  # doctest: +SKIP
    """

    show_progress: bool = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents, without an instruction, in order."""
        return self.client.embed_documents_as_lists(texts, show_progress=self.show_progress)

    def embed_query(self, text: str, *, instruction: str | None = None) -> list[float]:
        """Embed a query, with the instruction, or with one of its own."""
        return floats_of_one(self.client.embed_queries([text], instruction=instruction))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents; see `embed_documents`."""
        return await self.client.aembed_documents_as_lists(texts, show_progress=self.show_progress)

    async def aembed_query(self, text: str, *, instruction: str | None = None) -> list[float]:
        """Embed a query; see `embed_query`."""
        return floats_of_one(await self.client.aembed_queries([text], instruction=instruction))

    def cache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str:
        """Name a place for cached vectors; asks the server, see `EmbeddingClient.cache_namespace`.

        `CacheBackedEmbeddings` has one namespace for queries and documents: give it two stores.

            CacheBackedEmbeddings.from_bytes_store(
                embeddings,
                LocalFileStore(folder / embeddings.cache_namespace("document")),
                query_embedding_cache=LocalFileStore(folder / embeddings.cache_namespace("query")),
                key_encoder="sha256",
            )
        """
        return self.client.cache_namespace(role, instruction=instruction)


class Qwen3VLLMReranker(RerankAdapter, BaseDocumentCompressor):
    """Qwen3-Reranker served by vLLM, as a LangChain document compressor.

    Setup:
        Install `qwen3-vllm[langchain]` and start a server: `qwen3-vllm serve reranker`.

    Key init args:
        base_url: Server's address [QWEN3_RERANKER_URL], default `http://127.0.0.1:8001`. Several: a list,
            or with commas.
        top_n: Documents to keep, 3 by default; None for all.
        score_threshold: Drop documents with a lower relevance_score, in [0, 1].
        combine: `(relevance_score, document) -> float`, to rank by a mix with freshness, clicks, …
        instruction: Task sentence.
        All others: as `RerankClient` has them; docs/options.md explains each.

    Instantiate:
        >>> reranker = Qwen3VLLMReranker(base_url="http://127.0.0.1:8001", top_n=3)

    Compress:
        >>> best = reranker.compress_documents(documents, "What is the capital of China?")  # doctest: +SKIP
        >>> best[0].metadata["relevance_score"]  # doctest: +SKIP
        0.9993
    """

    top_n: int | None = Field(default=3, ge=0)
    score_threshold: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    combine: SkipJsonSchema[Callable[[float, Document], float] | None] = Field(
        default=None, exclude=True, repr=False
    )

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | None = None,
    ) -> Sequence[Document]:
        """Return the most relevant documents, best first; `instruction` is for this call.

        They are copies, with the score in `metadata["relevance_score"]`; those given stay as they are.
        """
        with count_usage() as count:
            results = self.client.rerank(query, _contents(documents), instruction=instruction)
        config = _run_of(callbacks)
        if config is not None:
            dispatch_custom_event(USAGE_EVENT, asdict(count.usage), config=config)
        return self._selected(results, documents)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | None = None,
    ) -> Sequence[Document]:
        """Return the most relevant documents; see `compress_documents`."""
        with count_usage() as count:
            results = await self.client.arerank(query, _contents(documents), instruction=instruction)
        config = _run_of(callbacks)
        if config is not None:
            await adispatch_custom_event(USAGE_EVENT, asdict(count.usage), config=config)
        return self._selected(results, documents)

    def rerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: int | None = None,
        instruction: str | None = None,
    ) -> list[RerankResult]:
        """Rank texts or documents without copying them: their indexes, scores and labels, best first.

        `top_n` None returns all. `score_threshold` and `combine` play no part here.
        """
        return self.client.rerank(query, _texts(documents), top_n=top_n, instruction=instruction)

    async def arerank(
        self,
        documents: Sequence[str | Document],
        query: str,
        *,
        top_n: int | None = None,
        instruction: str | None = None,
    ) -> list[RerankResult]:
        """Rank texts or documents; see `rerank`."""
        return await self.client.arerank(query, _texts(documents), top_n=top_n, instruction=instruction)

    def _selected(self, results: list[RerankResult], documents: Sequence[Document]) -> list[Document]:
        chosen = select(
            results,
            documents,
            top_n=self.top_n,
            score_threshold=self.score_threshold,
            combine=self.combine,
        )
        return [_with_score(documents[result.index], result.relevance_score) for result, _ in chosen]


class Qwen3VLLMCrossEncoder(RerankAdapter, BaseCrossEncoder):
    """Qwen3-Reranker served by vLLM, as a LangChain cross-encoder, for classes that take one.

    Setup:
        Install `qwen3-vllm[langchain]` and start a server: `qwen3-vllm serve reranker`.

    Key init args:
        base_url: Server's address [QWEN3_RERANKER_URL], default `http://127.0.0.1:8001`. Several: a list,
            or with commas.
        instruction: Task sentence.
        All others: as `RerankClient` has them; docs/options.md explains each.

    Instantiate:
        >>> model = Qwen3VLLMCrossEncoder(base_url="http://127.0.0.1:8001")

    Score:
        >>> model.score([("What is gravity?", "Gravity attracts bodies.")])  # doctest: +SKIP
        [0.9991]
    """

    def score(self, text_pairs: list[tuple[str, str]], *, instruction: str | None = None) -> list[float]:
        """Score pairs of a query and a document, in order: P(yes), in [0, 1]."""
        scores: list[float] = self.client.score(*_columns(text_pairs), instruction=instruction).tolist()
        return scores

    async def ascore(
        self, text_pairs: list[tuple[str, str]], *, instruction: str | None = None
    ) -> list[float]:
        """Score pairs; see `score`."""
        scores = await self.client.ascore(*_columns(text_pairs), instruction=instruction)
        return [float(score) for score in scores]


class Qwen3VLLMRetriever(Options, BaseRetriever):
    """Any retriever, reranked: finds candidates, then keeps the most relevant ones.

    Setup:
        Install `qwen3-vllm[langchain]` and start a server: `qwen3-vllm serve reranker`.

    Key init args:
        retriever: Finds the candidates; let it return several times as many as you need.
        reranker: Ranks them.
        k: Documents to return, also per call (`invoke(query, k=5)`). None: the reranker's `top_n`. `top_n` is
            another name of it.

    Instantiate:
        >>> retriever = Qwen3VLLMRetriever(
        ...     retriever=store.as_retriever(search_kwargs={"k": 30}), reranker=Qwen3VLLMReranker(), k=3
        ... )  # doctest: +SKIP

    Retrieve:
        >>> documents = retriever.invoke("What is the capital of China?")  # doctest: +SKIP

    A call's configuration reaches `retriever` as if that was called itself, with the callbacks of a child. So
    do the keywords of a call, except `k`, `top_n` and `instruction`, which say how to rank.
    """

    model_config = ConfigDict(extra="forbid")

    retriever: Annotated[RetrieverLike, WithJsonSchema({"type": "object"})]
    reranker: Qwen3VLLMReranker
    k: int | None = Field(default=None, ge=0)

    _twins: ClassVar[Mapping[str, str]] = {"top_n": "k"}

    @model_validator(mode="before")
    @classmethod
    def _top_n_is_k(cls, options: Any) -> Any:
        if not isinstance(options, dict) or "top_n" not in options:
            return options
        rest = {name: value for name, value in options.items() if name != "top_n"}
        return {**rest, "k": _one_count(options["top_n"], options.get("k"))}

    @property
    def top_n(self) -> int | None:
        """Another name of `k`."""
        return self.k

    @top_n.setter
    def top_n(self, count: int | None) -> None:
        self.k = count

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What can be configured: all that `retriever` knows."""
        return self.retriever.config_specs

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Find candidates and return the most relevant ones, best first."""
        config, kwargs = _with_run_name(config, kwargs)
        return super().invoke(input, config, _config=config, **kwargs)

    async def ainvoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Find candidates and return the most relevant ones; see `invoke`."""
        config, kwargs = _with_run_name(config, kwargs)
        return await super().ainvoke(input, config, _config=config, **kwargs)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        top_n: int | None = None,
        instruction: str | None = None,
        _config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        reranker = self._reranker(_one_count(top_n, k))
        config = patch_config(_config, callbacks=run_manager.get_child())
        candidates = self.retriever.invoke(query, config, **kwargs)
        child = run_manager.get_child()
        return list(reranker.compress_documents(candidates, query, child, **own_task(instruction)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        top_n: int | None = None,
        instruction: str | None = None,
        _config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        reranker = self._reranker(_one_count(top_n, k))
        config = patch_config(_config, callbacks=run_manager.get_child())
        candidates = await self.retriever.ainvoke(query, config, **kwargs)
        child = run_manager.get_child()
        return list(await reranker.acompress_documents(candidates, query, child, **own_task(instruction)))

    def _reranker(self, k: int | None) -> Qwen3VLLMReranker:
        k = self.k if k is None else k
        if k is None or k == self.reranker.top_n:
            return self.reranker
        _ = self.reranker.client  # made before the copy, so that all copies share it
        return self.reranker.model_copy(update={"top_n": k})


def _with_run_name(
    config: RunnableConfig | None, kwargs: dict[str, Any]
) -> tuple[RunnableConfig, dict[str, Any]]:
    """Take `run_name` out of the keywords: it names this run, not one of the retriever within."""
    config, rest = ensure_config(config), dict(kwargs)
    name = rest.pop("run_name", None)
    return ({**config, "run_name": name} if name else config), rest


def _run_of(callbacks: Callbacks | None) -> RunnableConfig | None:
    """The configuration of the run that a call is part of; None if it is part of none."""
    config = ensure_config({"callbacks": callbacks} if callbacks is not None else None)
    handlers = config.get("callbacks")
    run = handlers.parent_run_id if isinstance(handlers, BaseCallbackManager) else None
    return config if run is not None else None


def _one_count(top_n: int | None, k: int | None) -> int | None:
    """Give the number that two names of one option stand for."""
    if top_n is not None and k is not None and top_n != k:
        raise ConfigurationError(f"k={k} and top_n={top_n} are one option, and must not differ")
    return k if top_n is None else top_n


def _columns(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    check_list(pairs, "pair")
    for index, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pair {index} must be (query, document), not {type(pair).__name__}")
    return [query for query, _ in pairs], [document for _, document in pairs]


def _contents(documents: Sequence[Document]) -> list[str]:
    check_list(documents, "document")
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(f"document {index} is not a Document but {type(document).__name__}")
    return [document.page_content for document in documents]


def _texts(documents: Sequence[str | Document]) -> list[str]:
    check_list(documents, "document")
    return [document.page_content if isinstance(document, Document) else document for document in documents]


def _with_score(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
