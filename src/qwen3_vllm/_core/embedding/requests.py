"""Which requests the texts of a call become. Pure."""

from collections.abc import Sequence

from qwen3_vllm._core.batching.batches import plan
from qwen3_vllm._core.embedding.collect import rows_of
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.embedding.truncation import Fitted
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.embeddings import Vectors, embed


def batches_of(
    fitted: Fitted, texts: Sequence[str], max_count: int, only: Sequence[int] | None = None
) -> list[list[int]]:
    """Group what can be sent, by index: a batch holds texts, token ids, or texts that the server cuts.

    `only`: of these texts; None for all.
    """
    sizes = list(map(len, texts))
    if only is None and not fitted.any_cut and not fitted.refused:
        return plan(range(len(texts)), sizes, max_count)
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for index in range(len(texts)) if only is None else only:
        text = fitted.inputs[index]
        if index not in fitted.refused:
            kinds.setdefault((isinstance(text, str), index in fitted.left_to_server), []).append(index)
    return [batch for indexes in kinds.values() for batch in plan(indexes, sizes, max_count)]


def call_of(
    server: EmbeddingServer, fitted: Fitted, dimensions: int | None, bulk: bool, batch: list[int]
) -> Call[Vectors]:
    """Ask for the vectors of one batch, cut to `dimensions` by the server where it can."""
    rows = rows_of(batch)
    inputs = fitted.inputs
    return embed(
        server.model,
        inputs[rows] if isinstance(rows, slice) else [inputs[index] for index in rows],
        encoding=server.encoding,
        dtype=server.dtype,
        dimensions=dimensions if server.cuts else None,
        width=server.width,
        keep=dimensions,
        truncate_to=fitted.limit if batch[0] in fitted.left_to_server else None,
        bulk=bulk,
    )
