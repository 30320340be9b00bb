"""LangChain: the retriever hands its caller's configuration on, and a cross-encoder beside the compressor."""

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from langchain_classic.retrievers import EnsembleRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnableLambda

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from qwen3_vllm.langchain import (
    Qwen3VLLMCrossEncoder,
    Qwen3VLLMEmbeddings,
    Qwen3VLLMReranker,
    Qwen3VLLMRetriever,
)
from tests.fake_vllm import FakeVLLM
from tests.faults import SocketServer

CONFIG: RunnableConfig = {
    "configurable": {"tenant": "a"},
    "metadata": {"user": 7},
    "tags": ["night"],
    "max_concurrency": 3,
    "recursion_limit": 9,
    "run_name": "mine",
}
PAIRS = [("q1", "a"), ("q2", "b"), ("q1", "语")]


class Seen(BaseRetriever):
    """A retriever that keeps what it is called with."""

    tenant: str = "b"
    calls: list[dict[str, Any]]

    def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        self.calls.append(
            {"query": query, "tags": run_manager.tags, "metadata": run_manager.metadata, **kwargs}
        )
        return [Document(page_content=f"{self.tenant}{number}") for number in range(1, 6)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, **kwargs: Any
    ) -> list[Document]:
        return self._get_relevant_documents(query, run_manager=run_manager, **kwargs)


class Started(BaseCallbackHandler):
    """Keeps the names and parents of runs."""

    def __init__(self) -> None:
        self.runs: dict[Any, tuple[str, Any]] = {}

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.runs[kwargs["run_id"]] = (kwargs["name"], kwargs["parent_run_id"])


@pytest.fixture
def reranker(rerank_server: SocketServer) -> Qwen3VLLMReranker:
    return Qwen3VLLMReranker(base_url=rerank_server.base_url)


def texts(documents: list[Document]) -> list[str]:
    return sorted(document.page_content for document in documents)


WAYS: dict[str, Callable[..., Any]] = {
    "invoke": lambda r, config, **kw: r.invoke("q", config, **kw),
    "ainvoke": lambda r, config, **kw: asyncio.run(r.ainvoke("q", config, **kw)),
    "batch": lambda r, config, **kw: r.batch(["q", "p"], config, **kw)[0],
    "abatch": lambda r, config, **kw: asyncio.run(r.abatch(["q", "p"], config, **kw))[0],
    "stream": lambda r, config, **kw: next(iter(r.stream("q", config, **kw))),
    "astream": lambda r, config, **kw: asyncio.run(anext(r.astream("q", config, **kw))),
    "with_config": lambda r, config, **kw: r.with_config(config).invoke("q", **kw),
    "chain": lambda r, config, **kw: (RunnableLambda(lambda x: x) | r.bind(**kw)).invoke("q", config),
    "within a function": lambda r, config, **kw: RunnableLambda(lambda x: r.invoke(x, **kw)).invoke(
        "q", config
    ),
    "thread": lambda r, config, **kw: ThreadPoolExecutor(1).submit(r.invoke, "q", config, **kw).result(),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_inner_retriever_sees_what_it_would_see_if_called_itself(
    way: str, reranker: Qwen3VLLMReranker
) -> None:
    seen: list[dict[str, Any]] = []

    def inner(query: str, config: RunnableConfig, **kwargs: Any) -> list[Document]:
        seen.append({**config, "kwargs": kwargs})
        return [Document(page_content="d")]

    plain = RunnableLambda(inner)
    WAYS[way](plain, CONFIG, filter={"a": 1})
    alone = seen[-1]
    WAYS[way](Qwen3VLLMRetriever(retriever=plain, reranker=reranker), CONFIG, filter={"a": 1}, k=1)

    del seen[-1]["callbacks"], alone["callbacks"]
    assert seen[-1] == alone
    assert alone["configurable"] == {"tenant": "a"} and alone["kwargs"] == {"filter": {"a": 1}}


@pytest.mark.parametrize("way", WAYS)
def test_a_filter_given_as_a_configurable_field_is_kept(way: str, reranker: Qwen3VLLMReranker) -> None:
    inner = Seen(calls=[]).configurable_fields(tenant=ConfigurableField(id="tenant"))
    retriever = Qwen3VLLMRetriever(retriever=inner, reranker=reranker, k=9)

    assert texts(WAYS[way](retriever, CONFIG)) == ["a1", "a2", "a3", "a4", "a5"]
    assert [spec.id for spec in retriever.config_specs] == ["tenant"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch"])
def test_runs_of_the_inner_retriever_are_children(way: str, reranker: Qwen3VLLMReranker) -> None:
    handler, inner = Started(), Seen(calls=[])
    config = {**CONFIG, "callbacks": [handler]}

    WAYS[way](Qwen3VLLMRetriever(retriever=inner, reranker=reranker), config)

    parents = {run for run, (name, parent) in handler.runs.items() if parent is None and name == "mine"}
    assert {parent for name, parent in handler.runs.values() if name == "Seen"} == parents
    assert inner.calls[0]["tags"] == ["night"]
    assert inner.calls[0]["metadata"]["user"] == 7


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch"])
def test_the_name_and_id_of_a_run_do_not_reach_the_inner_retriever(
    way: str, reranker: Qwen3VLLMReranker
) -> None:
    handler, inner, run_id = Started(), Seen(calls=[]), uuid4()

    WAYS[way](
        Qwen3VLLMRetriever(retriever=inner, reranker=reranker),
        {"callbacks": [handler]},
        run_name="mine",
        **({} if way == "batch" else {"run_id": run_id}),
    )

    assert not {"run_name", "run_id"} & set(inner.calls[0])
    named = {run for run, (name, _) in handler.runs.items() if name == "mine"}
    assert {parent for name, parent in handler.runs.values() if name == "Seen"} == named
    assert way == "batch" or named == {run_id}


def test_retrievers_of_langchain_around_and_inside(reranker: Qwen3VLLMReranker) -> None:
    def inner() -> Runnable[Any, Any]:
        return Seen(calls=[]).configurable_fields(tenant=ConfigurableField(id="tenant"))

    ours = Qwen3VLLMRetriever(retriever=inner(), reranker=reranker, k=9)
    for retriever in (
        Qwen3VLLMRetriever(
            retriever=EnsembleRetriever(retrievers=[inner(), inner()], weights=[0.5, 0.5]),
            reranker=reranker,
            k=9,
        ),
        Qwen3VLLMRetriever(retriever=ours, reranker=reranker, k=9),
        EnsembleRetriever(retrievers=[ours], weights=[1]),
    ):
        assert texts(retriever.invoke("q", CONFIG)) == ["a1", "a2", "a3", "a4", "a5"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "chain"])
def test_k_top_n_and_instruction_are_the_rankers(way: str, rerank_server: SocketServer) -> None:
    inner = Seen(tenant="a", calls=[])
    retriever = Qwen3VLLMRetriever(
        retriever=inner, reranker=Qwen3VLLMReranker(base_url=rerank_server.base_url)
    )

    assert len(WAYS[way](retriever, None)) == 3
    assert len(WAYS[way](retriever, None, k=1)) == len(WAYS[way](retriever, None, top_n=1)) == 1
    WAYS[way](retriever, None, instruction="Judge tone", filter=1)

    assert "Judge tone" in rerank_server.bodies("/v1/score")[-1]["text_1"]
    assert all(set(call) <= {"query", "tags", "metadata", "filter"} for call in inner.calls)
    with pytest.raises(errors.ConfigurationError, match="k=1 and top_n=2"):
        WAYS[way](retriever, None, k=1, top_n=2)
    with pytest.raises(errors.ConfigurationError, match="top_n=-1"):
        WAYS[way](retriever, None, k=-1)


# --- cross-encoder -------------------------------------------------------------------------------------


def expected(pairs: list[tuple[str, str]], task: str = DEFAULT_INSTRUCTION) -> list[float]:
    return [FakeVLLM().probability(prompts.rerank_prompt(query, document, task)) for query, document in pairs]


@pytest.fixture
def model(rerank_server: SocketServer) -> Qwen3VLLMCrossEncoder:
    return Qwen3VLLMCrossEncoder(base_url=rerank_server.base_url)


def test_a_cross_encoder_scores_pairs_in_order(model: Qwen3VLLMCrossEncoder) -> None:
    scores = model.score(PAIRS)

    assert all(type(score) is float for score in scores)
    np.testing.assert_allclose(scores, expected(PAIRS), atol=1e-6)
    np.testing.assert_allclose(asyncio.run(model.ascore(PAIRS)), scores)
    np.testing.assert_allclose(model.score(PAIRS, instruction="Mine"), expected(PAIRS, "Mine"), atol=1e-6)
    assert model.score([]) == []
    assert pickle.loads(pickle.dumps(model)).score(PAIRS) == scores


def test_langchains_reranker_takes_the_cross_encoder(model: Qwen3VLLMCrossEncoder) -> None:
    documents = [Document(page_content=text) for text in "abcde"]

    best = CrossEncoderReranker(model=model, top_n=2).compress_documents(documents, "q")

    order = np.argsort(-np.array(expected([("q", text) for text in "abcde"])))
    assert [document.page_content for document in best] == ["abcde"[i] for i in order[:2]]


@pytest.mark.parametrize(
    "pairs", [None, "ab", ["ab"], [("q",)], [("q", "d", "x")], {"q": "d"}, [3], [("q", 3)]]
)
def test_what_is_no_list_of_pairs_is_told(model: Qwen3VLLMCrossEncoder, pairs: Any) -> None:
    with pytest.raises(errors.InputError, match=r"pair|document 0"):
        model.score(pairs)


async def test_progress_is_drawn_on_standard_error_where_asked_for(
    embedding_server: SocketServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    embeddings = Qwen3VLLMEmbeddings(base_url=embedding_server.base_url, show_progress=True)

    embeddings.embed_documents(["a", "b"])
    shown = capsys.readouterr()
    await embeddings.aembed_documents(["a", "b"])
    shown_too = capsys.readouterr()

    assert (shown.out, shown_too.out) == ("", "")
    assert "embedding" in shown.err and "embedding" in shown_too.err
