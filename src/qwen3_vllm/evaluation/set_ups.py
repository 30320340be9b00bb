"""What is compared: every combination of what the user lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.search.quantising import VectorKind, bytes_per_vector

Embeddings = EmbeddingClient | Mapping[str, EmbeddingClient]
Rerankers = RerankClient | Mapping[str, RerankClient]
Part = Literal["embedding", "instruction", "dimensions", "vectors", "candidates", "reranker"]


@dataclass(frozen=True)
class SetUp:
    """One way to search.

    Attributes:
        embedding: Name of the embedding server.
        instruction: Of queries, for both models. "" embeds them bare; rerankers then get their client's own.
        dimensions: Of the vectors that are searched.
        vectors: What the vectors are stored as.
        candidates: Documents that are reranked; 0: search alone.
        reranker: Name of the reranker; None for search alone.
    """

    embedding: str
    instruction: str
    dimensions: int
    vectors: VectorKind
    candidates: int = 0
    reranker: str | None = None

    @property
    def search(self) -> "SetUp":
        """The same without reranking."""
        return SetUp(self.embedding, self.instruction, self.dimensions, self.vectors)

    @property
    def bytes_per_vector(self) -> int:
        """Bytes that one document's vector takes, without an index around it."""
        return bytes_per_vector(self.dimensions, self.vectors)


@dataclass(frozen=True)
class Choices:
    """What the user lists; raises ConfigurationError where an option is one that no set-up can have.

    Attributes:
        embeddings: Clients by name.
        rerankers: Likewise.
        dimensions: `[]`: each server's own.
    """

    embeddings: Mapping[str, EmbeddingClient]
    rerankers: Mapping[str, RerankClient]
    instructions: Sequence[str]
    dimensions: Sequence[int]
    vectors: Sequence[VectorKind]
    candidates: Sequence[int]

    @classmethod
    def of(
        cls,
        embeddings: Embeddings | None,
        rerankers: Rerankers | None,
        instructions: Sequence[str],
        dimensions: Sequence[int],
        vectors: Sequence[VectorKind],
        candidates: Sequence[int],
    ) -> "Choices":
        """Give names to clients that have none; None stands for the default server, if it is needed."""
        embeddings = EmbeddingClient() if embeddings is None else embeddings
        if rerankers is None:
            rerankers = RerankClient() if any(candidates) else {}
        return cls(
            {"embedding": embeddings} if isinstance(embeddings, EmbeddingClient) else embeddings,
            {"reranker": rerankers} if isinstance(rerankers, RerankClient) else rerankers,
            instructions,
            dimensions,
            vectors,
            candidates,
        )

    def __post_init__(self) -> None:
        for name in ("embeddings", "instructions", "dimensions", "vectors", "candidates"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigurationError(f"{name} lists a value twice: {', '.join(map(str, values))}")
            if not values and name != "dimensions":
                raise ConfigurationError(f"{name} is empty: list at least one")
        unknown = [kind for kind in self.vectors if kind not in get_args(VectorKind)]
        if unknown:
            raise ConfigurationError(f"vectors={unknown[0]!r}: use {', '.join(get_args(VectorKind))}")
        if min(self.dimensions, default=1) < 1 or min(self.candidates) < 0:
            raise ConfigurationError("dimensions must be 1 or more, candidates 0 or more")
        if any(self.candidates) and not self.rerankers:
            raise ConfigurationError(f"candidates={max(self.candidates)} needs a reranker")

    def combined(self, widths: Mapping[str, int]) -> tuple[list[SetUp], list[str]]:
        """Combine what is listed.

        Args:
            widths: The dimensions that each embedding server's vectors have.

        Returns:
            The set-ups, and warnings about combinations that cannot be.

        Raises:
            ConfigurationError: No server's vectors have so many dimensions as are listed.
        """
        too_many = [size for size in self.dimensions if all(size > width for width in widths.values())]
        if too_many:
            own = ", ".join(f"{name} has vectors of {width}" for name, width in widths.items())
            raise ConfigurationError(f"dimensions={too_many[0]}: {own}")
        warnings = [
            f"{name} has vectors of {width} dimensions: not measured with {size}"
            for name, width in widths.items()
            for size in self.dimensions
            if size > width
        ]
        ways = [(count, name) for count in self.candidates if count for name in self.rerankers]
        second_stages: list[tuple[int, str | None]] = [*([(0, None)] if 0 in self.candidates else []), *ways]
        set_ups = [
            SetUp(embedding, instruction, size, kind, count, reranker)
            for embedding, width in widths.items()
            for instruction in self.instructions
            for size in self.dimensions or [width]
            if size <= width
            for kind in self.vectors
            for count, reranker in second_stages
        ]
        return set_ups, warnings


def varying(set_ups: Sequence[SetUp]) -> list[Part]:
    """Name what differs among set-ups."""
    names: list[Part] = ["embedding", "instruction", "dimensions", "vectors", "candidates", "reranker"]
    assert {each.name for each in fields(SetUp)} == set(names)
    differ = [name for name in names if len({getattr(each, name) for each in set_ups}) > 1]
    used = {each.reranker for each in set_ups if each.reranker is not None}
    return [name for name in differ if name != "reranker" or len(used) > 1]


def label(set_up: SetUp, parts: Sequence[Part], instructions: Sequence[str]) -> str:
    """Call a set-up by what is its own: `8B, B, 256 int8, rerank 50 by big`. Instructions go by letters."""
    words = []
    if "embedding" in parts:
        words.append(set_up.embedding)
    if "instruction" in parts:
        words.append(letter(instructions.index(set_up.instruction)))
    size = [str(set_up.dimensions)] if "dimensions" in parts else []
    kind = [set_up.vectors] if "vectors" in parts else []
    if size or kind:
        words.append(" ".join([*size, *kind]))
    if "candidates" in parts or "reranker" in parts:
        by = f" by {set_up.reranker}" if "reranker" in parts and set_up.reranker else ""
        words.append(f"rerank {set_up.candidates}{by}" if set_up.candidates else "search alone")
    return ", ".join(words) or "the only one"


def letter(index: int) -> str:
    """A, B, …, Z, A2, B2, …"""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index % 26] + (str(index // 26 + 1) if index >= 26 else "")
