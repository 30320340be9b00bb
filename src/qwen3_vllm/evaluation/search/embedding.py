"""Vectors of documents and queries, asked for once and kept."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from qwen3_vllm import EmbeddingClient
from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk import embed_stream
from qwen3_vllm.errors import InputError, Qwen3VLLMError
from qwen3_vllm.evaluation.search.keeping import (
    TIMED_CALLS,
    Advance,
    Rows,
    Times,
    check_probes,
    file_name,
    key_of,
)
from qwen3_vllm.evaluation.search.quantising import Blocks
from qwen3_vllm.evaluation.search.searching import BLOCK_DOCUMENTS

_PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "敏捷的棕色狐狸跳过懒狗。",
    "What does the warranty of a kettle cover?",
)
# The same server repeats its vectors to 0.9999 and better; another quantisation of its model does not.
_SAME_SERVER = 0.999
_QUERY = 1  # the size of a timed call


class EmbeddedTexts:
    """The vectors that one embedding server gives, in a folder of their own."""

    def __init__(self, name: str, client: EmbeddingClient, folder: Path, open_files: ExitStack) -> None:
        """Meet the server, and make sure that kept vectors are this model's.

        Raises:
            WrongServerError: Kept vectors come from another model.
        """
        self.name = name
        self.client = client
        self._open_files = open_files
        self._folder = folder / f"{file_name(name)}-vectors" / client.cache_namespace("document")
        self.times = Times(self._folder / "times.jsonl")
        probes = client.embed_documents(_PROBES)
        self.dimensions = probes.shape[1]
        check_probes(self._folder / "probe.json", probes, _are_alike, client, f"other vectors than {name!r}")

    def documents(self, texts: Sequence[str], advance: Advance) -> Blocks:
        """Embed the texts that have no vector yet; `advance` is called with how many were done.

        Raises:
            InputError: Some cannot be embedded; the others are, and are kept.
        """
        kept = self._rows(f"documents-{self.dimensions}")
        keys = [key_of(text) for text in texts]
        new = kept.missing(keys)
        advance(len(texts) - len(new))
        failures: dict[int, Qwen3VLLMError] = {}
        left = ((place, texts[place]) for place in new)
        for places, vectors in embed_stream(left, self.client, on_failure=failures.__setitem__):
            kept.append([keys[place] for place in places], vectors)
            advance(len(places))
        for place, error in failures.items():  # after the others, which are kept
            raise InputError(
                f"{len(failures):,} of {len(texts):,} documents cannot be embedded; the first is number "
                f"{place + 1}: {error}"
            ) from error
        rows = kept.rows_of(keys)
        values = kept.values

        def blocks() -> Iterator[Vectors]:
            for start in range(0, len(rows), BLOCK_DOCUMENTS):
                yield values[rows[start : start + BLOCK_DOCUMENTS]]

        return blocks

    def queries(self, texts: Sequence[str], instruction: str, advance: Advance) -> Vectors:
        """Embed queries; the first are sent one by one, to see what one takes."""
        kept = self._rows(f"queries-{self.dimensions}-{key_of(instruction).hex()[:12]}")
        keys = [key_of(text) for text in texts]
        new = kept.missing(keys)
        advance(len(texts) - len(new))
        alone = new[: max(0, TIMED_CALLS - self.times.count(_QUERY))]
        for place in alone:
            with self.times.measure(_QUERY):
                vectors = self.client.embed_queries([texts[place]], instruction=instruction)
            kept.append([keys[place]], vectors)
            advance(1)
        rest = new[len(alone) :]
        if rest:
            vectors = self.client.embed_queries([texts[place] for place in rest], instruction=instruction)
            kept.append([keys[place] for place in rest], vectors)
            advance(len(rest))
        return np.asarray(kept.values[kept.rows_of(keys)])

    @property
    def seconds_per_query(self) -> float | None:
        return self.times.seconds(_QUERY)

    @property
    def tokens_per_query(self) -> float | None:
        return self.times.tokens(_QUERY)

    def _rows(self, name: str) -> Rows:
        return self._open_files.enter_context(closing(Rows(self._folder / f"{name}.rows", self.dimensions)))


def _are_alike(before: Vectors, now: Vectors) -> bool:
    return before.shape == now.shape and float(np.min(np.sum(before * now, axis=1))) >= _SAME_SERVER
