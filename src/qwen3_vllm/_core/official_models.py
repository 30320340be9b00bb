"""The models that Qwen published, by the names they have on both hubs."""

from typing import Literal

Role = Literal["embedding", "reranker"]
ROLES: tuple[Role, ...] = ("embedding", "reranker")
Size = Literal["0.6B", "4B", "8B"]
SMALLEST: Size = "0.6B"

_FAMILIES: dict[Role, str] = {"embedding": "Qwen3-Embedding", "reranker": "Qwen3-Reranker"}


def official_name(role: Role, size: Size = SMALLEST) -> str:
    """Return the name without the owner, which is the name of its folder too."""
    return f"{_FAMILIES[role]}-{size}"


def official_model(role: Role, size: Size = SMALLEST) -> str:
    """Return the hub id."""
    return f"Qwen/{official_name(role, size)}"
