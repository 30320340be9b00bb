"""What a framework's class has of the client underneath."""

from collections.abc import Set

from pydantic import ConfigDict, PrivateAttr

from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.settings import EmbeddingSettings


class EmbeddingAdapter(EmbeddingSettings):
    """The options as fields, and a client of them: another one when one of them has changed.

    A copy shares the client, unless it has other options of the client.
    """

    model_config = ConfigDict(frozen=False)

    _client: EmbeddingClient | None = PrivateAttr(default=None)

    @property
    def client(self) -> EmbeddingClient:
        """The client underneath; its vectors are numpy arrays."""
        if self._client is None:
            options = {name: getattr(self, name) for name in EmbeddingSettings.model_fields}
            self._client = EmbeddingClient(**options)
        return self._client

    def _follow(self, changed: Set[str]) -> None:
        if not changed.isdisjoint(EmbeddingSettings.model_fields):
            self._client = None
