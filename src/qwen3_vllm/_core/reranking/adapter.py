"""What a framework's class has of the client underneath."""

from collections.abc import Set

from pydantic import ConfigDict, PrivateAttr

from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.settings import RerankSettings


class RerankAdapter(RerankSettings):
    """The options as fields, and a client of them: another one when one of them has changed.

    A copy shares the client, unless it has other options of the client.
    """

    model_config = ConfigDict(frozen=False)

    _client: RerankClient | None = PrivateAttr(default=None)

    @property
    def client(self) -> RerankClient:
        """The client underneath."""
        if self._client is None:
            options = {name: getattr(self, name) for name in RerankSettings.model_fields}
            self._client = RerankClient(**options)
        return self._client

    def _follow(self, changed: Set[str]) -> None:
        if not changed.isdisjoint(RerankSettings.model_fields):
            self._client = None


def own_task(instruction: str | None) -> dict[str, str]:
    """The keyword for a call with an instruction of its own; subclasses need not know it otherwise."""
    return {} if instruction is None else {"instruction": instruction}
