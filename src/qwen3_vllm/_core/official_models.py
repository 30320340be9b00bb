"""The models that Qwen published, by the names they have on both hubs."""

from enum import StrEnum
from typing import Literal

Role = Literal["embedding", "reranker"]
ROLES: tuple[Role, ...] = ("embedding", "reranker")

_FAMILIES: dict[Role, str] = {"embedding": "Qwen3-Embedding", "reranker": "Qwen3-Reranker"}


class Size(StrEnum):
    """Parameters of a model."""

    SMALL = "0.6B"
    MEDIUM = "4B"
    LARGE = "8B"


def official_name(role: Role, size: Size = Size.SMALL) -> str:
    """Return the name without the owner, which is the name of its folder too."""
    return f"{_FAMILIES[role]}-{size}"


def official_model(role: Role, size: Size = Size.SMALL) -> str:
    """Return the hub id."""
    return f"Qwen/{official_name(role, size)}"
