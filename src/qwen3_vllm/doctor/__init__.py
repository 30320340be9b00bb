"""Examine running servers: named checks, each with what was seen and what to do.

>>> from qwen3_vllm.doctor import examine
>>> checks = examine(reranker_url="http://127.0.0.1:8001")  # doctest: +SKIP
"""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qwen3_vllm import __version__
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.settings import EmbeddingSettings, RerankSettings
from qwen3_vllm.doctor.checks import Check, Status
from qwen3_vllm.doctor.embedding import examine_embedding
from qwen3_vllm.doctor.reranker import examine_reranker

__all__ = ["Check", "Status", "as_json", "default_embedding_url", "default_reranker_url", "examine"]


def examine(
    *,
    embedding_url: str | None = None,
    reranker_url: str | None = None,
    api_key: str | None = None,
    timeout: float = 60.0,
) -> list[Check]:
    """Examine an embedding server, a reranker, or both, by some fifty small requests each.

    Args:
        embedding_url: With or without `/v1`; None examines none.
        reranker_url: With or without `/v1`; None examines none.
        api_key: Key of both; None: VLLM_API_KEY, if set. In no check.
        timeout: Seconds that one request may take.

    Returns:
        The checks, in order. A server that cannot be reached, or is no such server, is a failed check.

    Raises:
        ConfigurationError: An address that is not a valid URL.
    """
    checks: list[Check] = []
    if embedding_url is not None:
        checks += examine_embedding(
            EmbeddingClient(base_url=embedding_url, api_key=api_key, timeout=timeout, max_retries=1)
        )
    if reranker_url is not None:
        checks += examine_reranker(
            RerankClient(base_url=reranker_url, api_key=api_key, timeout=timeout, max_retries=1)
        )
    return checks


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON values; `ok` is false if one failed."""
    return {
        "kind": "doctor",
        "ok": all(check.status != "fail" for check in checks),
        "environment": {
            "qwen3-vllm": __version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
        "checks": [asdict(check) for check in checks],
    }


def default_embedding_url() -> str:
    """Where the clients look for an embedding server."""
    return EmbeddingSettings().base_url


def default_reranker_url() -> str:
    """Where the clients look for a reranker."""
    return RerankSettings().base_url
