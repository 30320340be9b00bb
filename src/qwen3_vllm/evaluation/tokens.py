"""Tokens that servers counted, where client and server report them."""

from qwen3_vllm import EmbeddingClient, RerankClient


class TokenCount:
    """Counts the tokens of a client's calls from now on."""

    def __init__(self, client: EmbeddingClient | RerankClient) -> None:
        self._client = client
        self._before = self._reported()

    def used(self) -> int | None:
        """Tokens since this was made; None where they are not reported."""
        now = self._reported()
        return (
            now - self._before
            if now is not None and self._before is not None and now > self._before
            else None
        )

    def _reported(self) -> int | None:
        tokens = getattr(getattr(self._client, "usage", None), "tokens", None)
        return tokens if isinstance(tokens, int) else None
