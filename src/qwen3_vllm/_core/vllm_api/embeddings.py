"""Texts or token ids in, L2-normalised vectors out: /v1/embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pybase64
from numpy.typing import NDArray

from qwen3_vllm._core.vllm_api.calls import (
    ITEM_BYTES,
    SLACK_BYTES,
    Answer,
    Call,
    TokenIds,
    items_of,
    unexpected,
)

Vectors = NDArray[np.float32]
# The leanest first; "unset" leaves it to the server, which takes "float".
Encoding = Literal["bytes_only", "base64", "float", "unset"]
WireDtype = Literal["float32", "float16"]

_NUMPY_DTYPE: dict[WireDtype, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
_NUMBER_BYTES = 50  # "-1.2345678901234567e-08," on a line of its own, as some gateways write JSON
_WIDEST_VECTOR = 2**16  # numbers; until the width is known


def embed(
    model: str,
    inputs: Sequence[str | TokenIds],
    *,
    encoding: Encoding,
    dtype: WireDtype = "float32",
    dimensions: int | None = None,
    width: int | None = None,
    keep: int | None = None,
    truncate_to: int | None = None,
    bulk: bool = False,
) -> Call[Vectors]:
    """Embed `inputs`: one L2-normalised row each, in order.

    Args:
        dimensions: Asked of the server; None where it does not cut vectors itself.
        width: Dimensions that the vectors must have; None while they are not known.
        keep: Cut vectors to their first numbers here.
        truncate_to: Let the server cut inputs to so many tokens.
        bulk: As in `Call`.
    """
    body: dict[str, Any] = {"model": model, "input": list(inputs)}
    if encoding != "unset":
        body["encoding_format"] = encoding
    if encoding == "bytes_only" or dtype != "float32":  # fields that vLLM knows from 0.11.1
        body["endianness"] = "little"
        body["embed_dtype"] = dtype
    if dimensions is not None:
        body["dimensions"] = dimensions
    if truncate_to is not None:
        body["truncate_prompt_tokens"] = truncate_to
    count = len(inputs)

    def decode(answer: Answer) -> Vectors:
        kind = answer.headers.get("content-type", "")
        if answer.status == 200 and kind.startswith("application/octet-stream"):
            vectors = _raw_vectors(answer, count, _NUMPY_DTYPE[dtype])
        else:
            vectors = _json_vectors(answer, count, _NUMPY_DTYPE[dtype])
        if width is not None and vectors.shape[1] != width:
            raise unexpected(answer, f"{count} vectors of {width} dimensions", f"{vectors.shape[1]} each")
        vectors = vectors[:, :keep]
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        if not ((norms > 0) & np.isfinite(norms)).all():
            bad = int(np.flatnonzero(~((norms > 0) & np.isfinite(norms)))[0])
            raise unexpected(answer, "finite vectors", f"NaN, infinity or only zeros in vector {bad}")
        unit: Vectors = np.divide(vectors, norms[:, None])
        return unit

    most = SLACK_BYTES + count * (ITEM_BYTES + (width or _WIDEST_VECTOR) * _NUMBER_BYTES)
    return Call("/v1/embeddings", body, decode, most, bulk=bulk)


@dataclass(frozen=True, slots=True)
class EmbeddingProbe:
    """What a response with one vector shows of a server.

    Attributes:
        vector: L2-normalised.
        in_pieces: The response came without a length. vLLM, to 0.32 at least, sends binary responses so: one
            vector after another, each fetched by a thread.
    """

    vector: Vectors
    in_pieces: bool


def embed_letter(
    model: str, *, encoding: Encoding, dtype: WireDtype, dimensions: int | None
) -> Call[EmbeddingProbe]:
    """Embed one letter, to see how the server answers."""
    call = embed(model, ["a"], encoding=encoding, dtype=dtype, dimensions=dimensions)

    def decode(answer: Answer) -> EmbeddingProbe:
        return EmbeddingProbe(call.decode(answer)[0].copy(), "content-length" not in answer.headers)

    return replace(call, decode=decode)  # type: ignore[arg-type, return-value]


def embed_unchecked(model: str, inputs: Sequence[str | TokenIds], encoding: Encoding) -> Call[Vectors]:
    """Embed `inputs`, rows as the server returns them, to examine the server itself."""
    body: dict[str, Any] = {"model": model, "input": list(inputs)}
    if encoding != "unset":
        body["encoding_format"] = encoding
    return Call(
        "/v1/embeddings",
        body,
        lambda answer: _json_vectors(answer, len(inputs), _NUMPY_DTYPE["float32"]),
        SLACK_BYTES + len(inputs) * _WIDEST_VECTOR * _NUMBER_BYTES,
    )


def _raw_vectors(answer: Answer, count: int, dtype: np.dtype[Any]) -> Vectors:
    size = len(answer.content)
    if size == 0 or size % (count * dtype.itemsize):
        raise unexpected(answer, f"{count} vectors of {dtype.name}", f"{size} bytes")
    vectors: NDArray[Any] = np.frombuffer(answer.content, dtype=dtype).reshape(count, -1)
    return vectors.astype(np.float32, copy=False)


def _json_vectors(answer: Answer, count: int, dtype: np.dtype[Any]) -> Vectors:
    rows: list[Any] = [item.get("embedding") for item in items_of(answer, count)]
    try:
        if all(isinstance(row, str) for row in rows):
            vectors = _base64_vectors(rows, dtype)
        else:
            vectors = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError):
        vectors = np.empty(0, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise unexpected(answer, f"{count} vectors of one length")
    return vectors


def _base64_vectors(rows: Sequence[str], dtype: np.dtype[Any]) -> Vectors:
    """pybase64 takes 2 µs for 1,024 numbers, binascii 14 to 23."""
    if len(set(map(len, rows))) != 1:
        raise ValueError("vectors of different lengths")
    content = b"".join([pybase64.b64decode(row, validate=True) for row in rows])
    vectors: NDArray[Any] = np.frombuffer(content, dtype=dtype).reshape(len(rows), -1)
    return vectors.astype(np.float32, copy=False)
