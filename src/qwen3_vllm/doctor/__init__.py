"""Examine running servers: named checks, each with what was seen and what to do.

>>> from qwen3_vllm.doctor import examine
>>> checks = examine(reranker_url="http://127.0.0.1:8001")  # doctest: +SKIP
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeAlias, TypeVar

from qwen3_vllm import __version__
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.settings import EmbeddingSettings, RerankSettings, addresses_of
from qwen3_vllm.doctor.checks import Check, Status, examine_together
from qwen3_vllm.doctor.embedding import examine_embedding
from qwen3_vllm.doctor.reference import Reference, compare, read_reference, take_reference
from qwen3_vllm.doctor.reranker import examine_reranker

C = TypeVar("C", EmbeddingClient, RerankClient)
Addresses: TypeAlias = str | Sequence[str] | None

__all__ = [
    "Check",
    "Reference",
    "Status",
    "as_json",
    "compare",
    "default_embedding_url",
    "default_reranker_url",
    "examine",
    "read_reference",
    "reference",
]


def examine(
    *,
    embedding_url: Addresses = None,
    reranker_url: Addresses = None,
    embedding_model: str | None = None,
    reranker_model: str | None = None,
    api_key: str | None = None,
    timeout: float = 60.0,
) -> list[Check]:
    """Examine an embedding server, a reranker, or both, by some fifty small requests each.

    Args:
        embedding_url: With or without `/v1`; of several, each is examined. None examines none.
        reranker_url: Likewise.
        embedding_model: Its name, where a gateway does not list it; None: the first listed that embeds.
        reranker_model: Likewise.
        api_key: Key of both; None: VLLM_API_KEY, if set; "": none. In no check.
        timeout: Seconds that one request may take.

    Returns:
        The checks, in order. A server that cannot be reached, or is of another kind, is a failed check.

    Raises:
        ConfigurationError: An address that is not a valid URL.
    """
    embedding, reranker = _clients(
        embedding_url, reranker_url, embedding_model, reranker_model, api_key, timeout
    )
    checks: list[Check] = []
    if embedding is not None:
        checks += _of_each("embedding", embedding, examine_embedding)
    if reranker is not None:
        checks += _of_each("reranker", reranker, examine_reranker)
    return checks


def _of_each(section: str, client: C, examine_one: Callable[[C], list[Check]]) -> list[Check]:
    """Examine the server at each address, and, of several, whether they do the same."""
    addresses = addresses_of(client.settings)
    if len(addresses) == 1:
        return examine_one(client)
    checks: list[Check] = [
        replace(check, name=f"{address} {check.name}")
        for address in addresses
        for check in examine_one(client.with_options(base_url=address))
    ]
    return [*checks, *examine_together(section, client)]


def reference(
    *,
    embedding_url: Addresses = None,
    reranker_url: Addresses = None,
    embedding_model: str | None = None,
    reranker_model: str | None = None,
    api_key: str | None = None,
    timeout: float = 60.0,
    like: Reference | None = None,
) -> Reference:
    """Take vectors and scores of fixed texts, to `compare` with those of another day.

    Args:
        like: Take those of the same texts; None: of this package's own.
        All others: as in `examine`.

    Raises:
        ConfigurationError: An address that is not a valid URL.
        Qwen3VLLMError: A server returns none.
    """
    clients = _clients(embedding_url, reranker_url, embedding_model, reranker_model, api_key, timeout)
    return take_reference(*clients, like)


def _clients(
    embedding_url: Addresses,
    reranker_url: Addresses,
    embedding_model: str | None,
    reranker_model: str | None,
    api_key: str | None,
    timeout: float,
) -> tuple[EmbeddingClient | None, RerankClient | None]:
    embedding = reranker = None
    if embedding_url is not None:
        embedding = EmbeddingClient(
            base_url=embedding_url, model=embedding_model, api_key=api_key, timeout=timeout, max_retries=1
        )
    if reranker_url is not None:
        reranker = RerankClient(
            base_url=reranker_url, model=reranker_model, api_key=api_key, timeout=timeout, max_retries=1
        )
    return embedding, reranker


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


def default_embedding_url() -> str | Sequence[str]:
    """Where the clients look for an embedding server."""
    return EmbeddingSettings().base_url


def default_reranker_url() -> str | Sequence[str]:
    """Where the clients look for a reranker."""
    return RerankSettings().base_url
