"""Vectors and scores of fixed texts, kept to be compared later: do an index and its thresholds still hold?"""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qwen3_vllm import __version__, errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.reranking.logits import logits
from qwen3_vllm._core.vllm_api.calls import models
from qwen3_vllm.doctor import samples
from qwen3_vllm.doctor.checks import Check, Examination

# Cosine distances of one text's vectors. Measured: two GPUs instead of one move vectors by 1e-4. Estimated,
# not measured on real models: float16 on the wire 1e-7, storing vectors as int8 5e-4, and more than 2e-3 for
# some texts by other weights, int4 among them, by another pooling or a lost end token.
_SAME_DISTANCE = 1e-5
_ROUNDING_DISTANCE = 2e-3
# Differences of log-odds. bfloat16 has steps of 0.03 to 0.06 where they are, and two routes of one server may
# differ by 0.35; that a prompt which is not Qwen3's moves some by several units is an estimate.
_SAME_LOG_ODDS = 0.02
_ROUNDING_LOG_ODDS = 0.5

Role = Literal["query", "document"]
_Score = Annotated[float, Field(ge=0, le=1)]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class KeptVectors(_Kept):
    """Vectors of texts, each with its role."""

    model: str
    texts: list[tuple[Role, str]] = Field(min_length=1)
    vectors: list[list[float]]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        lengths = set(map(len, self.vectors))
        if len(self.vectors) != len(self.texts) or len(lengths) != 1 or 0 in lengths:
            raise ValueError("each text needs a vector, all of one length")
        return self


class KeptScores(_Kept):
    """P(yes) of pairs of a query and a document."""

    model: str
    pairs: list[tuple[str, str]] = Field(min_length=1)
    scores: list[_Score]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.scores) != len(self.pairs):
            raise ValueError("each pair needs a score")
        return self


class Reference(_Kept):
    """What servers gave for fixed texts; None for a server that was not asked."""

    kind: Literal["doctor reference"]
    format: Literal[1]
    qwen3_vllm: str = __version__
    embedding: KeptVectors | None = None
    reranker: KeptScores | None = None

    def write(self, file: Path) -> None:
        """Write a JSON file; raises OSError."""
        file.write_text(self.model_dump_json(), encoding="utf-8")


def read_reference(file: Path) -> Reference:
    """Read what `Reference.write` wrote.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    try:
        return Reference.model_validate_json(file.read_bytes())
    except OSError as error:
        raise errors.InputError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the whole"
        raise errors.InputError(
            f"{file} was not written by `qwen3-vllm doctor --save`: {place}: {problem['msg']}"
        ) from None


def take_reference(*clients: EmbeddingClient | RerankClient, like: Reference | None = None) -> Reference:
    """Take vectors and scores of fixed texts, to `compare` with those of another day.

    Each text travels alone, so that no batch rounds one run otherwise than the next.

    Args:
        clients: One of an embedding server, one of a reranker, or both.
        like: Take those of the same texts; None: of this package's own.

    Raises:
        Qwen3VLLMError: A server returns none.
    """
    vectors = scores = None
    for client in clients:
        model = _served(client)
        if isinstance(client, EmbeddingClient):
            texts = _texts() if like is None or like.embedding is None else like.embedding.texts
            numbers = [_vector(client, *each) for each in texts]
            vectors = KeptVectors(model=model, texts=texts, vectors=numbers)
        else:
            pairs = list(samples.PAIRS) if like is None or like.reranker is None else like.reranker.pairs
            scores = KeptScores(model=model, pairs=pairs, scores=[_score(client, *each) for each in pairs])
    return Reference(kind="doctor reference", format=1, embedding=vectors, reranker=scores)


def _served(client: EmbeddingClient | RerankClient) -> str:
    """The model's name at the server."""
    listed = Examination("", client, "").ask(models())
    return listed[0].name if listed else ""


def _texts() -> list[tuple[Role, str]]:
    queries: list[tuple[Role, str]] = [("query", text) for text in samples.QUERIES]
    return queries + [("document", text) for text in (*samples.DOCUMENTS, samples.LONG_TEXT)]


def _vector(client: EmbeddingClient, role: Role, text: str) -> list[float]:
    if role == "query":
        vectors = client.embed_queries([text], instruction=prompts.DEFAULT_INSTRUCTION)
    else:
        vectors = client.embed_documents([text])
    return [float(f"{number:.8g}") for number in vectors[0].tolist()]  # float32 has no more digits


def _score(client: RerankClient, query: str, document: str) -> float:
    (score,) = client.score(query, [document], instruction=prompts.DEFAULT_INSTRUCTION).tolist()
    return float(score)


def compare(before: Reference, now: Reference) -> list[Check]:
    """Say how far vectors and scores have moved; "fail": an index, or thresholds, no longer hold."""
    checks = []
    if now.embedding is not None:
        checks.append(
            _compare_vectors(before.embedding, now.embedding)
            if before.embedding is not None
            else Check("embedding.unchanged", "skip", "the saved file has no vectors")
        )
    if now.reranker is not None:
        checks.append(
            _compare_scores(before.reranker, now.reranker)
            if before.reranker is not None
            else Check("reranker.unchanged", "skip", "the saved file has no scores")
        )
    return checks


def _compare_vectors(before: KeptVectors, now: KeptVectors) -> Check:
    name, rebuild = (
        "embedding.unchanged",
        "Rebuild the index: its vectors and those of new queries do not match",
    )
    renamed = _renamed(before.model, now.model)
    old, new = np.array(before.vectors), np.array(now.vectors)
    if old.shape[1] != new.shape[1]:
        seen = f"{new.shape[1]} dimensions, were {old.shape[1]}{renamed}"
        return Check(name, "fail", seen, f"{rebuild}, or serve the earlier model again")
    cosines = (old * new).sum(axis=1) / (np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1))
    distances: NDArray[np.float64] = np.maximum(1 - cosines, 0)
    most = float(distances.max())
    values = {"cosine distances": distances.tolist()}
    seen = f"cosine distances up to {most:.2g}, {np.median(distances):.2g} in the median{renamed}"
    if most <= _SAME_DISTANCE:
        return Check(name, "ok", f"the same: {seen}", values=values)
    if most <= _ROUNDING_DISTANCE:
        return Check(name, "ok", f"moved within rounding, the index holds: {seen}", values=values)
    advice = (
        f"{rebuild}. If that was not meant, look at model, weights, quantization, --pooler-config, --dtype"
    )
    return Check(name, "fail", f"moved: {seen}", advice, values)


def _compare_scores(before: KeptScores, now: KeptScores) -> Check:
    name = "reranker.unchanged"
    apart: NDArray[np.float64] = np.abs(logits(now.scores) - logits(before.scores))
    most = float(apart.max())
    values = {"differences of log-odds": apart.tolist()}
    seen = (
        f"log-odds differ by up to {most:.2g}, {np.median(apart):.2g} in the median"
        f"{_renamed(before.model, now.model)}"
    )
    if most <= _SAME_LOG_ODDS:
        return Check(name, "ok", f"the same: {seen}", values=values)
    if most <= _ROUNDING_LOG_ODDS:
        return Check(name, "ok", f"moved within rounding: {seen}", values=values)
    advice = (
        "No index depends on these scores, but score thresholds do: set them again. If that was not meant, "
        "look at model, weights, quantization, --chat-template"
    )
    return Check(name, "fail", f"moved: {seen}", advice, values)


def _renamed(before: str, now: str) -> str:
    return "" if before == now else f"; the model is {now!r}, was {before!r}"
