"""Usage where the frameworks' users look for it: LlamaIndex's tags, LangChain's custom events."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from llama_index_instrumentation.event_handlers import BaseEventHandler

from qwen3_vllm import langchain, llama_index
from tests.fake_vllm import FakeVLLM
from tests.faults import SocketServer, serve

EVENTS: list[Any] = []


class Keep(BaseEventHandler):
    def handle(self, event: Any, **kwargs: Any) -> None:
        EVENTS.append(event)


@pytest.fixture(autouse=True)
def events() -> Any:
    root = get_dispatcher()
    handler = Keep()
    root.event_handlers.append(handler)
    EVENTS.clear()
    yield
    root.event_handlers.remove(handler)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_embedding_event_has_the_usage_of_its_call(is_async: bool) -> None:
    with serve(FakeVLLM("embedding", version="0.12.0")) as server:
        model = llama_index.Qwen3VLLMEmbeddings(base_url=server.base_url, embed_batch_size=2)
        with instrument_tags({"mine": 1}):
            if is_async:
                asyncio.run(model.aget_text_embedding_batch(["a", "bc", "def"]))
            else:
                model.get_text_embedding_batch(["a", "bc", "def"])

    tags = EVENTS[-1].tags
    assert tags["qwen3_vllm.usage"] == {"requests": 2, "tokens": 9, "uncounted": 0}
    assert tags["mine"] == 1


def test_a_rerank_event_has_the_usage_of_its_call(rerank_server: SocketServer) -> None:
    reranker = llama_index.Qwen3VLLMReranker(base_url=rerank_server.base_url)
    for _ in range(2):
        reranker.postprocess_nodes([NodeWithScore(node=TextNode(text="a"), score=0.0)], query_str="b")

    starts, ends = EVENTS[::2], EVENTS[1::2]
    assert [event.tags["qwen3_vllm.usage"]["requests"] for event in starts + ends] == [0, 0, 1, 1]
    assert all(event.tags["qwen3_vllm.usage"]["tokens"] > 0 for event in ends)


class Handler(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.seen.append((name, data))


class AsyncHandler(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.seen.append((name, data))


def test_the_reranker_sends_a_custom_event_within_a_run(rerank_server: SocketServer) -> None:
    reranker = langchain.Qwen3VLLMReranker(base_url=rerank_server.base_url)
    found: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: [Document("a"), Document("b")])
    retriever = langchain.Qwen3VLLMRetriever(retriever=found, reranker=reranker)
    handler, async_handler = Handler(), AsyncHandler()

    retriever.invoke("q", config={"callbacks": [handler]})
    asyncio.run(retriever.ainvoke("q", config={"callbacks": [async_handler]}))
    chain: RunnableLambda[str, Any] = RunnableLambda(
        lambda query: reranker.compress_documents([Document("a")], query)
    )
    chain.invoke("q", config={"callbacks": [handler]})

    assert [name for name, _ in handler.seen + async_handler.seen] == ["qwen3_vllm.usage"] * 3
    assert all(data["requests"] == 1 and data["tokens"] > 0 for _, data in handler.seen + async_handler.seen)


def test_without_a_run_there_is_no_event(rerank_server: SocketServer) -> None:
    reranker = langchain.Qwen3VLLMReranker(base_url=rerank_server.base_url)
    handler = Handler()

    assert len(reranker.compress_documents([Document("a")], "q", callbacks=[handler])) == 1
    assert handler.seen == []
