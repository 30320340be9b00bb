"""Qwen3-Embedding and Qwen3-Reranker served by vLLM: clients with right scores by default.

>>> from qwen3_vllm import EmbeddingClient, RerankClient
>>> EmbeddingClient().embed_queries(["What is the capital of China?"]).shape  # doctest: +SKIP
(1, 1024)
"""

from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.reranking.ranking import RerankResult
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

__version__ = "0.1.0"

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
    "WrongServerError",
    "__version__",
]
