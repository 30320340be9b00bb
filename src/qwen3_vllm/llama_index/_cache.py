"""LlamaIndex's `embeddings_cache`, made safe: LlamaIndex itself looks vectors up by their text alone."""

from typing import Any, Protocol

from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

from qwen3_vllm._core.cache_keys import CacheRole
from qwen3_vllm._core.texts import check_text
from qwen3_vllm.errors import InputError


class NamesVectors(Protocol):
    """A model that names the kinds of its vectors."""

    def cache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str: ...

    async def acache_namespace(self, role: CacheRole, *, instruction: str | None = None) -> str: ...


class CallStore(BaseKVStore):
    """What one call of a model sees of the user's store: keys begin with the name of the kind of vector.

    The server is asked for that name when the first text is looked up.

    Attributes:
        store: The user's own.
    """

    def __init__(
        self, store: BaseKVStore, model: NamesVectors, role: CacheRole, instruction: str | None
    ) -> None:
        self.store = store
        self._model = model
        self._role = role
        self._instruction = instruction
        self._name: str | None = None

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        self.store.put(self._key(key), val, collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        await self.store.aput(await self._akey(key), val, collection)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        return self.store.get(self._key(key), collection) if _may_be_there(key) else None

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        return await self.store.aget(await self._akey(key), collection) if _may_be_there(key) else None

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return self.store.get_all(collection)

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return await self.store.aget_all(collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return self.store.delete(self._key(key), collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return await self.store.adelete(await self._akey(key), collection)

    def _key(self, text: str) -> str:
        if self._name is None:
            self._name = self._model.cache_namespace(self._role, instruction=self._instruction)
        return f"{self._name}:{text}"

    async def _akey(self, text: str) -> str:
        if self._name is None:
            self._name = await self._model.acache_namespace(self._role, instruction=self._instruction)
        return f"{self._name}:{text}"


def _may_be_there(text: object) -> bool:
    """Whether a text can have a vector; if not, the client says what is wrong with it."""
    try:
        check_text(text, "the text")
    except InputError:
        return False
    return True
