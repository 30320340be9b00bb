"""What is searched, what is asked, and which documents are relevant to what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from qwen3_vllm.errors import InputError
from qwen3_vllm.evaluation.data.embed_folder import EmbeddedDocuments

Judgements = Mapping[str, Mapping[str, int]]
"""Relevance by query id and document id; above 0 is relevant."""


@dataclass(frozen=True)
class Dataset:
    """A corpus, queries, and judgements.

    Attributes:
        document_ids: In the order of the corpus; unique.
        texts: Of the documents, in the same order; None where only their vectors are known.
        queries: Texts by id.
        judgements: Empty: none yet; only a labelling sheet can be made.
        embedded: Vectors of the documents from a folder made by `qwen3-vllm embed`.
        warnings: What is odd about the input, with counts.
    """

    document_ids: Sequence[str]
    texts: Sequence[str] | None
    queries: Mapping[str, str]
    judgements: Judgements
    embedded: EmbeddedDocuments | None = None
    warnings: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def of(
        cls, documents: Mapping[str, str], queries: Mapping[str, str], judgements: Judgements | None = None
    ) -> Self:
        """Make a dataset of what is in memory: texts by id, and relevance by query id and document id."""
        return cls(list(documents), list(documents.values()), dict(queries), judgements or {})

    def __post_init__(self) -> None:
        if not self.document_ids:
            raise InputError("the corpus has no document")
        if not self.queries:
            raise InputError("it has no query")
