"""LlamaIndex's `embeddings_cache`, made safe: LlamaIndex itself looks vectors up by their text alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

from qwen3_vllm.caching import CacheRole


@dataclass(slots=True)
class _Lookup:
    """One call of an embedding model; `name` once a cache was asked, for all texts of the call."""

    model: ApartCacheEmbedding
    role: CacheRole
    name: str | None = None


_lookup: ContextVar[_Lookup] = ContextVar("_lookup")


class ApartKVStore(BaseKVStore):
    """Another store, in which keys begin with the name of the kind of vector.

    Attributes:
        store: Where everything is kept.
    """

    def __init__(self, store: BaseKVStore) -> None:
        self.store = store

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        self.store.put(_named(key), val, collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        await self.store.aput(await _anamed(key), val, collection)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        return self.store.get(_named(key), collection)

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        return await self.store.aget(await _anamed(key), collection)

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return self.store.get_all(collection)

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return await self.store.aget_all(collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return self.store.delete(_named(key), collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return await self.store.adelete(await _anamed(key), collection)


class ApartCacheEmbedding(BaseEmbedding):
    """An embedding model whose cache is told, call by call, which kind of vector is looked up."""

    @abstractmethod
    def cache_namespace(self, role: CacheRole) -> str: ...

    @abstractmethod
    async def acache_namespace(self, role: CacheRole) -> str: ...

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query, with the instruction."""
        with self._looking_up("query"):
            return super().get_query_embedding(query)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed a query; see `get_query_embedding`."""
        with self._looking_up("query"):
            return await super().aget_query_embedding(query)

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed a text, without an instruction."""
        with self._looking_up("document"):
            return super().get_text_embedding(text)

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed a text; see `get_text_embedding`."""
        with self._looking_up("document"):
            return await super().aget_text_embedding(text)

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts, without an instruction, in order."""
        with self._looking_up("document"):
            return super().get_text_embedding_batch(texts, show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts; see `get_text_embedding_batch`."""
        with self._looking_up("document"):
            return await super().aget_text_embedding_batch(texts, show_progress, **kwargs)

    @contextmanager
    def _looking_up(self, role: CacheRole) -> Iterator[None]:
        # Here and not where it is set: it may be assigned, copied or unpickled at any time.
        if self.embeddings_cache is not None and not isinstance(self.embeddings_cache, ApartKVStore):
            self.embeddings_cache = ApartKVStore(self.embeddings_cache)
        token = _lookup.set(_Lookup(self, role))
        try:
            yield
        finally:
            _lookup.reset(token)


def _named(text: str) -> str:
    lookup = _lookup.get()
    lookup.name = lookup.name or lookup.model.cache_namespace(lookup.role)
    return f"{lookup.name}:{text}"


async def _anamed(text: str) -> str:
    lookup = _lookup.get()
    lookup.name = lookup.name or await lookup.model.acache_namespace(lookup.role)
    return f"{lookup.name}:{text}"
