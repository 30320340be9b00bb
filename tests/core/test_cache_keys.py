"""Cached vectors: found again, and never taken for vectors of another kind."""

import asyncio
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.storage.kvstore import SimpleKVStore

from qwen3_vllm import ConfigurationError, EmbeddingClient, langchain, llama_index
from tests.fake_vllm import FakeVLLM
from tests.faults import Reply, Request, SocketServer, serve

TEXT = "What is the capital of China?"
Ask = Callable[..., list[float]]


class WithRoot(FakeVLLM):
    """A server that tells which checkpoint it serves."""

    root = "/models/Qwen3-Embedding-0.6B"

    def __call__(self, request: Request) -> Reply | None:
        if request.path == "/v1/models":
            line = {"id": self.model, "max_model_len": self.context, "root": self.root}
            return Reply.of_json({"data": [line]})
        return super().__call__(request)


@pytest.fixture
def server() -> Iterator[SocketServer]:
    with serve(WithRoot("embedding", matryoshka=True)) as running:
        yield running


def embedded(server: SocketServer) -> list[str]:
    """Texts the server was asked to embed, without the clients' first question, `a`."""
    return [text for body in server.bodies("/v1/embeddings") for text in body["input"] if text != "a"]


# --- the name ------------------------------------------------------------------------------------------


def name(server: SocketServer, role: Any = "query", **options: Any) -> str:
    return EmbeddingClient(base_url=server.base_url, **options).cache_namespace(role)


@pytest.mark.parametrize("role", ["query", "document"])
def test_name_is_the_same_for_the_same_options(server: SocketServer, role: str) -> None:
    assert name(server, role) == name(server, role, batch_size=3, timeout=9)


def test_name_is_the_same_in_async_code(server: SocketServer) -> None:
    client = EmbeddingClient(base_url=server.base_url)
    assert asyncio.run(client.acache_namespace("query")) == client.cache_namespace("query")


def test_name_keeps_queries_and_documents_apart(server: SocketServer) -> None:
    assert name(server, "query") != name(server, "document")


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("option", [{"dimensions": 8}, {"wire_dtype": "float16"}])
def test_name_depends_on_options_that_change_vectors(
    server: SocketServer, role: str, option: dict[str, Any]
) -> None:
    assert name(server, role, **option) != name(server, role)


def test_name_depends_on_the_instruction_for_queries_only(server: SocketServer) -> None:
    assert name(server, "query", instruction="Find code") != name(server, "query")
    assert name(server, "document", instruction="Find code") == name(server, "document")


@pytest.mark.parametrize("other", [{"model": "Qwen4"}, {"root": "/models/Qwen3-Embedding-4B"}])
def test_name_depends_on_what_the_server_serves(server: SocketServer, other: dict[str, str]) -> None:
    before = name(server)
    for attribute, value in other.items():
        setattr(server.answer, attribute, value)
    assert name(server) != before


@pytest.mark.parametrize("model", ["Qwen/Qwen3 嵌入", "../../etc", "x" * 300])
def test_name_fits_files_and_key_prefixes(server: SocketServer, model: str) -> None:
    server.answer.model = model  # type: ignore[attr-defined]
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name(server))


def test_a_role_that_does_not_exist_is_refused(server: SocketServer) -> None:
    with pytest.raises(ConfigurationError, match="'text'"):
        name(server, "text")


# --- LangChain -----------------------------------------------------------------------------------------


def cached(embeddings: langchain.Qwen3VLLMEmbeddings, folder: Path) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        LocalFileStore(folder / embeddings.cache_namespace("document")),
        query_embedding_cache=LocalFileStore(folder / embeddings.cache_namespace("query")),
        key_encoder="sha256",
    )


def test_langchain_cache_keeps_a_query_and_an_equal_document_apart(
    server: SocketServer, tmp_path: Path
) -> None:
    plain = langchain.Qwen3VLLMEmbeddings(base_url=server.base_url)
    with_cache = cached(plain, tmp_path)
    for _ in range(2):
        np.testing.assert_allclose(with_cache.embed_documents([TEXT])[0], plain.embed_documents([TEXT])[0])
        np.testing.assert_allclose(with_cache.embed_query(TEXT), plain.embed_query(TEXT))


def test_langchain_cache_is_found_by_the_next_process(server: SocketServer, tmp_path: Path) -> None:
    for _ in range(2):
        embeddings = cached(langchain.Qwen3VLLMEmbeddings(base_url=server.base_url), tmp_path)
        embeddings.embed_documents([TEXT, "Beijing."])
        embeddings.embed_query(TEXT)
    assert len(embedded(server)) == 3


# --- LlamaIndex ----------------------------------------------------------------------------------------

ASKS: dict[str, Ask] = {
    "query": lambda model, text: model.get_query_embedding(text),
    "query, async": lambda model, text: asyncio.run(model.aget_query_embedding(text)),
    "text": lambda model, text: model.get_text_embedding(text),
    "text, async": lambda model, text: asyncio.run(model.aget_text_embedding(text)),
    "batch": lambda model, text: model.get_text_embedding_batch([text])[0],
    "batch, async": lambda model, text: asyncio.run(model.aget_text_embedding_batch([text]))[0],
}


def model(server: SocketServer, **options: Any) -> llama_index.Qwen3VLLMEmbeddings:
    return llama_index.Qwen3VLLMEmbeddings(base_url=server.base_url, **options)


@pytest.mark.parametrize("way", ASKS)
def test_llama_index_cache_is_found_again(server: SocketServer, way: str) -> None:
    store = SimpleKVStore()
    vectors = [ASKS[way](model(server, embeddings_cache=store), TEXT) for _ in range(2)]
    assert vectors[0] == vectors[1]
    assert len(embedded(server)) == 1


@pytest.mark.parametrize("way", ASKS)
@pytest.mark.parametrize("before", ASKS)
def test_llama_index_cache_keeps_queries_and_texts_apart(server: SocketServer, before: str, way: str) -> None:
    with_cache = model(server, embeddings_cache=SimpleKVStore())
    ASKS[before](with_cache, TEXT)
    assert ASKS[way](with_cache, TEXT) == ASKS[way](model(server), TEXT)


@pytest.mark.parametrize("way", ["query", "query, async", "batch", "batch, async"])
@pytest.mark.parametrize("options", [{"instruction": "Find code"}, {"dimensions": 8}])
def test_llama_index_cache_keeps_options_apart(
    server: SocketServer, options: dict[str, Any], way: str
) -> None:
    store = SimpleKVStore()
    ASKS[way](model(server, embeddings_cache=store), TEXT)
    other = model(server, embeddings_cache=store, **options)
    assert ASKS[way](other, TEXT) == ASKS[way](model(server, **options), TEXT)


def assigned(model: llama_index.Qwen3VLLMEmbeddings) -> llama_index.Qwen3VLLMEmbeddings:
    model.instruction = "Find code"
    return model


CHANGES: dict[str, Callable[[llama_index.Qwen3VLLMEmbeddings], llama_index.Qwen3VLLMEmbeddings]] = {
    "assignment": assigned,
    "copy": lambda model: model.model_copy(update={"instruction": "Find code"}),
    "deep copy": lambda model: model.model_copy(update={"instruction": "Find code"}, deep=True),
    "dict": lambda model: type(model).from_dict(model.to_dict() | {"instruction": "Find code"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_llama_index_cache_follows_a_change_of_options(server: SocketServer, change: str) -> None:
    first = model(server, embeddings_cache=SimpleKVStore())
    first.get_query_embedding(TEXT)
    changed = CHANGES[change](first)
    assert changed.get_query_embedding(TEXT) == model(server, instruction="Find code").get_query_embedding(
        TEXT
    )


def test_llama_index_cache_is_safe_when_assigned_later(server: SocketServer) -> None:
    with_cache = model(server)
    with_cache.embeddings_cache = SimpleKVStore()
    with_cache.get_text_embedding(TEXT)
    assert with_cache.get_query_embedding(TEXT) == model(server).get_query_embedding(TEXT)


def test_llama_index_cache_goes_along_with_a_pickle(server: SocketServer) -> None:
    with_cache = model(server, embeddings_cache=SimpleKVStore())
    with_cache.get_query_embedding(TEXT)
    pickle.loads(pickle.dumps(with_cache)).get_query_embedding(TEXT)
    assert len(embedded(server)) == 1


@pytest.mark.parametrize("way", ASKS)
def test_llama_index_cache_stays_the_users_own(server: SocketServer, way: str) -> None:
    store = SimpleKVStore()
    with_cache = model(server, embeddings_cache=store)

    vector = ASKS[way](with_cache, TEXT)

    assert with_cache.embeddings_cache is store
    role: Literal["query", "document"] = "query" if way.startswith("query") else "document"
    kept = with_cache.embeddings_cache.get(f"{with_cache.cache_namespace(role)}:{TEXT}", "embeddings")
    assert list(kept.values()) == [vector]
    with_cache.embeddings_cache.put_all([("mine", {"a": 1})])
    assert store.get("mine") == {"a": 1}


def test_llama_index_model_with_a_cache_is_serialised_as_llama_indexs_own(
    server: SocketServer, tmp_path: Path
) -> None:
    store = SimpleKVStore()
    ours, own = model(server, embeddings_cache=store), MockEmbedding(embed_dim=4, embeddings_cache=store)
    ours.get_text_embedding(TEXT)

    assert ours.to_dict()["embeddings_cache"] is own.to_dict()["embeddings_cache"] is store
    ours.embeddings_cache.persist(str(tmp_path / "cache.json"))
    found = SimpleKVStore.from_persist_path(str(tmp_path / "cache.json"))
    model(server, embeddings_cache=found).get_text_embedding(TEXT)
    assert len(embedded(server)) == 1


@pytest.mark.parametrize("way", ["query", "query, async"])
def test_llama_index_cache_follows_a_calls_instruction(server: SocketServer, way: str) -> None:
    with_cache = model(server, embeddings_cache=SimpleKVStore())

    def ask(of: llama_index.Qwen3VLLMEmbeddings, instruction: str | None) -> list[float]:
        if way == "query":
            return of.get_query_embedding(TEXT, instruction=instruction)
        return asyncio.run(of.aget_query_embedding(TEXT, instruction=instruction))

    vectors = {task: ask(with_cache, task) for task in (None, "Find code", "", "Find prose")}

    assert vectors == {task: ask(model(server), task) for task in vectors}
    asked = len(embedded(server))
    assert vectors == {task: ask(with_cache, task) for task in vectors}
    assert len(embedded(server)) == asked
    assert (
        ask(model(server, embeddings_cache=with_cache.embeddings_cache, instruction="Find code"), None)
        == (vectors["Find code"])
    )
    assert len(embedded(server)) == asked
    assert with_cache.instruction == model(server).instruction


def test_llama_index_cache_keeps_calls_of_threads_apart(server: SocketServer) -> None:
    with_cache = model(server, embeddings_cache=SimpleKVStore())
    plain = {name: ask(model(server), TEXT) for name, ask in ASKS.items()}

    with ThreadPoolExecutor(8) as pool:
        calls = [(name, pool.submit(ASKS[name], with_cache, TEXT)) for name in [*ASKS] * 8]

    assert all(call.result() == plain[name] for name, call in calls)


async def test_llama_index_cache_keeps_calls_of_tasks_apart(server: SocketServer) -> None:
    with_cache, plain = model(server, embeddings_cache=SimpleKVStore()), model(server)
    tasks = ["One", "Two", "Three"] * 4

    vectors = await asyncio.gather(*(with_cache.aget_query_embedding(TEXT, instruction=t) for t in tasks))

    assert vectors == [await plain.aget_query_embedding(TEXT, instruction=task) for task in tasks]


def test_llama_index_cache_that_is_empty_is_used(server: SocketServer) -> None:
    class Counted(SimpleKVStore):
        def __len__(self) -> int:
            return len(self.get_all("embeddings"))

    store = Counted()
    for _ in range(2):
        model(server, embeddings_cache=store).get_text_embedding(TEXT)
    assert len(embedded(server)) == len(store) == 1


def test_llama_index_cache_must_be_a_store(server: SocketServer) -> None:
    with pytest.raises(ConfigurationError, match="BaseKVStore"):
        model(server, embeddings_cache={})


def test_llama_index_pipelines_know_the_same_model_again(server: SocketServer) -> None:
    hashes = {get_transformation_hash([], model(server, embeddings_cache=SimpleKVStore())) for _ in range(2)}
    assert len(hashes) == 1
