"""Examine running servers: named checks, each with what was seen and what to do.

>>> from qwen3_vllm import RerankClient
>>> from qwen3_vllm.doctor import examine
>>> checks = examine(RerankClient(base_url="http://127.0.0.1:8001"))  # doctest: +SKIP
"""

import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from qwen3_vllm import __version__
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.settings import addresses_of
from qwen3_vllm.doctor.checks import Check, Status, examine_together
from qwen3_vllm.doctor.embedding import examine_embedding
from qwen3_vllm.doctor.reference import Reference, compare, read_reference, take_reference
from qwen3_vllm.doctor.reranker import examine_reranker

__all__ = [
    "Check",
    "Reference",
    "Status",
    "as_json",
    "compare",
    "examine",
    "read_reference",
    "take_reference",
]


def examine(*clients: EmbeddingClient | RerankClient) -> list[Check]:
    """Examine the servers of clients, by some fifty small requests each.

    Of a client with several addresses each server is examined, and whether they do the same.

    Returns:
        The checks, in order. A server that cannot be reached, or is of another kind, is a failed check.
    """
    return [check for client in clients for check in _examine_all(client)]


def _examine_all(client: EmbeddingClient | RerankClient) -> list[Check]:
    addresses = addresses_of(client.settings)
    if len(addresses) == 1:
        return _examine_one(client)
    checks = [
        replace(check, name=f"{address} {check.name}")
        for address in addresses
        for check in _examine_one(client.with_options(base_url=address))
    ]
    return [*checks, *examine_together(client)]


def _examine_one(client: EmbeddingClient | RerankClient) -> list[Check]:
    return examine_embedding(client) if isinstance(client, EmbeddingClient) else examine_reranker(client)


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
