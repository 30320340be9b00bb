"""Qwen3-Embedding and Qwen3-Reranker served by vLLM: clients with right scores by default.

>>> from qwen3_vllm import EmbeddingClient, RerankClient
>>> EmbeddingClient().embed_queries(["What is the capital of China?"]).shape  # doctest: +SKIP
(1, 1024)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from qwen3_vllm.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    DownloadError,
    InputError,
    InvalidAnswerError,
    LaunchError,
    ModelNotFoundError,
    OverloadedError,
    Qwen3VLLMError,
    RequestTimeoutError,
    RouteNotFoundError,
    ServerDied,
    ServerError,
    ServerUnreachableError,
    TooLongError,
    WrongServerError,
)

if TYPE_CHECKING:
    from qwen3_vllm._core.embedding.client import EmbeddingClient
    from qwen3_vllm._core.reranking.client import RerankClient
    from qwen3_vllm._core.reranking.ranking import RerankResult
    from qwen3_vllm._core.usage import Usage, count_usage

__version__ = "0.2.0"

__all__ = [
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "DownloadError",
    "EmbeddingClient",
    "InputError",
    "InvalidAnswerError",
    "LaunchError",
    "ModelNotFoundError",
    "OverloadedError",
    "Qwen3VLLMError",
    "RequestTimeoutError",
    "RerankClient",
    "RerankResult",
    "RouteNotFoundError",
    "ServerDied",
    "ServerError",
    "ServerUnreachableError",
    "TooLongError",
    "Usage",
    "WrongServerError",
    "__version__",
    "count_usage",
]

# Imported when first used: numpy, aiohttp and pydantic were most of the time of `qwen3-vllm --help`.
_LAZY = {
    "EmbeddingClient": "qwen3_vllm._core.embedding.client",
    "RerankClient": "qwen3_vllm._core.reranking.client",
    "RerankResult": "qwen3_vllm._core.reranking.ranking",
    "Usage": "qwen3_vllm._core.usage",
    "count_usage": "qwen3_vllm._core.usage",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(_LAZY[name]), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
