"""The clients that are measured, each as its own documentation says to use it, at one server.

A contestant is made once and called many times. What is not installed is left out.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import aiohttp
import numpy as np
import orjson
import pybase64
import requests

from benchmarks.measure import Plan, Work
from qwen3_vllm._core import prompts
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.vllm_api.scores import score

T = TypeVar("T")
Embed = Callable[[list[str]], object]
Post = Callable[[str, dict[str, Any]], Awaitable[bytes]]
OCTETS = "bytes_only"
_ARTICLE_BATCH = 128  # a fixed yardstick, whatever the others are told


@dataclass(frozen=True)
class Target:
    """A server to measure at: its address without `/v1`, its model, the key it needs ("" for none)."""

    root: str
    model: str
    key: str
    plan: Plan
    encoding: str = OCTETS

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


class Tools:
    """An event loop and a pool of connections for the contestants that bring none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None

    def wait(self, work: Awaitable[T]) -> T:
        async def both() -> T:
            return await work

        return self._loop.run_until_complete(both())

    def poster(self, target: Target) -> Post:
        """Return a bare POST of JSON over aiohttp."""

        async def post(path: str, body: dict[str, Any]) -> bytes:
            if self._session is None:
                # vLLM closes idle connections after 5 s, and others have their turns in between.
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
                self._session = aiohttp.ClientSession(connector=connector)
            headers = {"Content-Type": "application/json", **target.headers}
            async with self._session.post(
                target.root + path, data=orjson.dumps(body), headers=headers
            ) as answer:
                answer.raise_for_status()
                return await answer.read()

        return post

    def close(self) -> None:
        if self._session is not None:
            self.wait(self._session.close())
        self._loop.close()


@contextmanager
def tools() -> Iterator[Tools]:
    with ExitStack() as stack:
        made = Tools()
        stack.callback(made.close)
        yield made


# --- documents -----------------------------------------------------------------------------------------


def _ours(target: Target, **options: Any) -> EmbeddingClient:
    return EmbeddingClient(base_url=target.root, model=target.model, api_key=target.key or None, **options)


def _sized(target: Target) -> dict[str, int]:
    return {"batch_size": target.plan.batch, "max_concurrency": target.plan.concurrency}


def our_numpy(target: Target, tools: Tools) -> Embed:
    return _ours(target, **_sized(target)).embed_documents


def our_defaults(target: Target, tools: Tools) -> Embed:
    return _ours(target).embed_documents


def our_langchain(target: Target, tools: Tools) -> Embed:
    kind = import_module("qwen3_vllm.langchain").Qwen3VLLMEmbeddings
    made = kind(base_url=target.root, model=target.model, api_key=target.key or None, **_sized(target))
    return made.embed_documents


def our_llama_index(target: Target, tools: Tools) -> Embed:
    kind = import_module("qwen3_vllm.llama_index").Qwen3VLLMEmbeddings
    made = kind(base_url=target.root, model_name=target.model, api_key=target.key or None, **_sized(target))
    return made.get_text_embedding_batch


def langchain_openai(target: Target, tools: Tools) -> Embed:
    made = import_module("langchain_openai").OpenAIEmbeddings(
        base_url=f"{target.root}/v1",
        model=target.model,
        api_key=target.key or "EMPTY",
        # Without this it sends token ids of another tokenizer.
        check_embedding_ctx_length=False,
        chunk_size=target.plan.batch,
    )
    return made.embed_documents


def llama_index_openai_like(target: Target, tools: Tools) -> Embed:
    made = import_module("llama_index.embeddings.openai_like").OpenAILikeEmbedding(
        api_base=f"{target.root}/v1",
        model_name=target.model,
        api_key=target.key or "EMPTY",
        embed_batch_size=min(target.plan.batch, 2048),
    )
    return made.get_text_embedding_batch


def vllm_haystack(target: Target, tools: Tools) -> Embed:
    document = import_module("haystack").Document
    made = import_module("haystack_integrations.components.embedders.vllm").VLLMDocumentEmbedder(
        model=target.model,
        api_base_url=f"{target.root}/v1",
        api_key=import_module("haystack.utils").Secret.from_token(target.key or "EMPTY"),
        batch_size=target.plan.batch,
        progress_bar=False,
        raise_on_failure=True,
    )
    return lambda texts: made.run([document(content=text) for text in texts])


def article(target: Target, tools: Tools) -> Embed:
    """The openai SDK asked for floats, one request of 128 documents after another."""
    client = import_module("openai").OpenAI(base_url=f"{target.root}/v1", api_key=target.key or "EMPTY")

    def embed(texts: list[str]) -> object:
        return [
            item.embedding
            for batch in _batches(texts, _ARTICLE_BATCH)
            for item in client.embeddings.create(
                input=batch, model=target.model, encoding_format="float"
            ).data
        ]

    return embed


def raw_requests(target: Target, tools: Tools) -> Embed:
    """A requests session, base64 into numpy, one request after another."""
    session = requests.Session()
    session.headers.update(target.headers)

    def embed(texts: list[str]) -> object:
        rows = []
        for batch in _batches(texts, target.plan.batch):
            body = {"model": target.model, "input": batch, "encoding_format": "base64"}
            answer = session.post(f"{target.root}/v1/embeddings", json=body, timeout=600)
            answer.raise_for_status()
            rows += [np.frombuffer(base64.b64decode(i["embedding"]), "<f4") for i in answer.json()["data"]]
        return np.stack(rows)

    return embed


def bare_aiohttp(target: Target, tools: Tools) -> Embed:
    """What the server and the network allow: the leanest requests, as many at once, and nothing checked."""
    post = tools.poster(target)

    async def embed(texts: list[str]) -> object:
        room = asyncio.Semaphore(target.plan.concurrency)

        async def one(batch: list[str]) -> object:
            body = {"model": target.model, "input": batch, "encoding_format": target.encoding}
            async with room:
                content = await post("/v1/embeddings", body)
            if target.encoding == OCTETS:
                return np.frombuffer(content, "<f4")
            return [
                np.frombuffer(pybase64.b64decode(i["embedding"]), "<f4")
                for i in orjson.loads(content)["data"]
            ]

        return await asyncio.gather(*(one(batch) for batch in _batches(texts, target.plan.batch)))

    return lambda texts: tools.wait(embed(texts))


def _batches(texts: list[str], size: int) -> Iterator[list[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


OUR_NUMPY, OUR_LISTS = "qwen3-vllm, numpy", "qwen3-vllm, LangChain"
OUR_LLAMA_INDEX = "qwen3-vllm, LlamaIndex"
OUR_DEFAULTS = "qwen3-vllm, numpy, default batches"
ARTICLE, BARE, REQUESTS = "the article (openai SDK, float)", "bare aiohttp", "raw requests"
LANGCHAIN, LLAMA_INDEX = "LangChain OpenAIEmbeddings", "LlamaIndex OpenAILikeEmbedding"
# Name, the module it needs besides this package's own, how it is made.
DOCUMENTS: Mapping[str, tuple[str, Callable[[Target, Tools], Embed]]] = {
    OUR_NUMPY: ("numpy", our_numpy),
    OUR_DEFAULTS: ("numpy", our_defaults),
    OUR_LISTS: ("langchain_core", our_langchain),
    OUR_LLAMA_INDEX: ("llama_index.core", our_llama_index),
    LANGCHAIN: ("langchain_openai", langchain_openai),
    LLAMA_INDEX: ("llama_index.embeddings.openai_like", llama_index_openai_like),
    "Haystack VLLMDocumentEmbedder": ("haystack_integrations.components.embedders.vllm", vllm_haystack),
    ARTICLE: ("openai", article),
    REQUESTS: ("requests", raw_requests),
    BARE: ("aiohttp", bare_aiohttp),
}


def failures() -> tuple[type[Exception], ...]:
    """What contestants raise when a server fails them."""
    known: tuple[type[Exception], ...] = (requests.RequestException, aiohttp.ClientError)
    return (*known, import_module("openai").OpenAIError) if installed("openai") else known


def installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


# --- queries -------------------------------------------------------------------------------------------

SYNC, ASYNC = "qwen3-vllm, embed_queries", "qwen3-vllm, aembed_queries"
LANGCHAIN_QUERY = "LangChain OpenAIEmbeddings, embed_query"


def query_works(target: Target, tools: Tools, query: str) -> dict[str, Work]:
    """Every way to embed one query, one at a time."""
    ours, bare = _ours(target), raw_requests(target, tools)
    works: dict[str, Work] = {
        REQUESTS: lambda: bare([prompts.embedding_query(query, prompts.DEFAULT_INSTRUCTION)]),
        SYNC: lambda: ours.embed_queries([query]),
        ASYNC: lambda: tools.wait(ours.aembed_queries([query])),
    }
    if installed("langchain_core"):
        kind = import_module("qwen3_vllm.langchain").Qwen3VLLMEmbeddings
        made = kind(base_url=target.root, model=target.model, api_key=target.key or None)
        works["qwen3-vllm, LangChain embed_query"] = lambda: made.embed_query(query)
        works["qwen3-vllm, LangChain aembed_query"] = lambda: tools.wait(made.aembed_query(query))
    if installed("langchain_openai"):
        theirs = langchain_openai(target, tools)
        works[LANGCHAIN_QUERY] = lambda: theirs([query])
    return works


# --- rankings ------------------------------------------------------------------------------------------

SPLITS = (1, 4, 10, 20, 100)
OUR_RANKING = "qwen3-vllm, rerank"


def split_name(requests_at_once: int) -> str:
    return f"bare aiohttp, {requests_at_once} request{'s' if requests_at_once > 1 else ''}"


def rerank_works(
    target: Target, tools: Tools, *, server_templates: bool, query: str, documents: Callable[[], list[str]]
) -> dict[str, Work]:
    """One query with 100 documents, by this client and by bare requests in different numbers.

    `documents` gives other documents at each call: the server must not know them from its cache.
    """
    client = RerankClient(base_url=target.root, model=target.model, api_key=target.key or None)
    post = tools.poster(target)
    head = prompts.rerank_head(query, prompts.DEFAULT_INSTRUCTION)

    async def split(count: int) -> object:
        texts = documents()
        if server_templates:
            first, seconds = query, texts
        else:
            first, seconds = head, [prompts.rerank_tail(text) for text in texts]
        size = -(-len(seconds) // count)
        bodies = [score(target.model, first, part).body or {} for part in _batches(seconds, size)]
        answers = await asyncio.gather(*(post("/v1/score", body) for body in bodies))
        return [item["score"] for answer in answers for item in orjson.loads(answer)["data"]]

    works: dict[str, Work] = {OUR_RANKING: lambda: client.rerank(query, documents())}
    for count in SPLITS:
        works[split_name(count)] = lambda count=count: tools.wait(split(count))  # type: ignore[misc]
    return works
