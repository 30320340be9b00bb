"""Examine an embedding server."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm import errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.embedding.client import EmbeddingClient, server_of
from qwen3_vllm._core.embedding.flows import START
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.official_models import official_name
from qwen3_vllm._core.vllm_api.calls import Call, ServedModel, TokenIds, tokenize
from qwen3_vllm._core.vllm_api.embeddings import Vectors, embed, embed_unchecked
from qwen3_vllm.doctor import samples
from qwen3_vllm.doctor.basics import control_tokens, examine_basics, examine_latency, examine_tokenizer
from qwen3_vllm.doctor.checks import Check, Examination
from qwen3_vllm.doctor.gateway import embedding_through_gateway

_OFFICIAL = official_name("embedding")
_SAME = 0.999  # cosine of one text computed twice, in half precision and another batch
_UNMOVED = 0.995  # cosine above which the last token has not made the vector
_NORM_TOLERANCE = 2e-3


def examine_embedding(client: EmbeddingClient) -> list[Check]:
    """Examine the server of `client`."""
    examination = Examination("embedding", client, START)
    try:
        server: EmbeddingServer | errors.Qwen3VLLMError = server_of(client)
    except errors.Qwen3VLLMError as error:
        server = error
    named = client.settings.model if isinstance(server, errors.Qwen3VLLMError) else server.model
    served = examine_basics(examination, named)
    vector = _embeds(examination, server) if served is not None else None
    if served is None or vector is None or isinstance(server, errors.Qwen3VLLMError):
        examination.note("the rest", "skip", "needs a server that embeds")
        return examination.checks
    embedding_through_gateway(examination, client, server)
    first = examine_tokenizer(examination, served.name)
    _norm(examination, vector)
    _dimensions(examination, server, vector)
    _end_token(examination, server, first)
    _instruction(examination, client)
    _control_tokens(examination, served.name, first)
    _latency(examination, client)
    _published(examination, client, served)
    return examination.checks


def _embeds(
    examination: Examination, server: EmbeddingServer | errors.Qwen3VLLMError
) -> NDArray[np.float32] | None:
    with examination.checking("serves embeddings", f"Start a server for them: {START}") as note:
        if isinstance(server, errors.Qwen3VLLMError):
            raise server
        vectors = examination.ask(_unchecked(server, [samples.LONG_TEXT]))
        note("ok", f"{vectors.shape[1]} dimensions")
        vector: NDArray[np.float32] = vectors[0]
        return vector
    return None


def _unchecked(server: EmbeddingServer, inputs: Sequence[str | TokenIds]) -> Call[Vectors]:
    return embed_unchecked(server.model, inputs, server.json_encoding)


def _norm(examination: Examination, vector: NDArray[np.float32]) -> None:
    length = float(np.linalg.norm(vector))
    if abs(length - 1) <= _NORM_TOLERANCE:
        examination.note("unit norm", "ok", f"length {length:.5f}")
    else:
        advice = (
            f"Let the server normalise: start it with `{START}`, without --pooler-config. This client "
            "normalises itself, others do not"
        )
        examination.note("unit norm", "fail", f"length {length:.5g}, not 1", advice)


def _dimensions(examination: Examination, server: EmbeddingServer, whole: NDArray[np.float32]) -> None:
    fewer = len(whole) // 2
    advice = (
        f"Nothing to do for this client, it cuts vectors itself. For others: {START}, or vLLM's "
        "--hf-overrides '{\"is_matryoshka\": true}'"
    )
    with examination.checking("dimensions") as note:
        call = embed(server.model, [samples.LONG_TEXT], encoding=server.json_encoding, dimensions=fewer)
        vectors = examination.ask_if_there(call)
        if isinstance(vectors, errors.Qwen3VLLMError):
            note("warn", "the server refuses `dimensions`", advice)
            return
        cut = vectors[0]
        if len(cut) != fewer:
            note("warn", "the server ignores `dimensions`", advice)
        elif (cosine := _cosine(cut, whole[:fewer])) < _SAME:
            seen = f"{fewer} of them are not the first of {len(whole)} (cosine {cosine:.4f})"
            note("fail", seen, "Do not ask this server for `dimensions`")
        else:
            note("ok", f"{fewer} of {len(whole)} on request")


def _end_token(examination: Examination, server: EmbeddingServer, end: int) -> None:
    """Embed a text, its tokens, and its tokens without the end token: only the last may differ."""
    with examination.checking("end token") as note:
        whole = examination.ask_if_there(tokenize(server.model, samples.LONG_TEXT))
        if isinstance(whole, errors.Qwen3VLLMError):
            note("skip", "could not check: no /tokenize")
            return
        bare = examination.ask(tokenize(server.model, samples.LONG_TEXT, add_special_tokens=False))
        if whole != [*bare, end]:
            added = whole[len(bare) :] or "nothing"
            seen = f"the tokenizer adds {added}, not [{end}], <|endoftext|>"
            advice = "Serve a Qwen3-Embedding checkpoint with its own tokenizer files, unchanged"
            note("fail", seen, advice)
            return
        (text,) = examination.ask(_unchecked(server, [samples.LONG_TEXT]))
        uncut, cut = (examination.ask(_unchecked(server, [ids]))[0] for ids in (whole, bare))
        same, moved = _cosine(text, uncut), _cosine(text, cut)
        seen = f"cosine of a text with its tokens {same:.4f}, and without the end token {moved:.4f}"
        if same < _SAME:
            advice = "The server changes texts or tokens on their way: is there a chat template, or a proxy?"
            note("fail", seen, advice)
        elif moved > _UNMOVED:
            advice = f"Pool the last token: start it with `{START}`, without a pooling type of your own"
            note("fail", f"{seen}: other tokens are pooled", advice)
        else:
            note("ok", seen)


def _instruction(examination: Examination, client: EmbeddingClient) -> None:
    with examination.checking("instruction") as note:
        query = samples.QUERIES[:1]
        with_it, without = client.embed_queries(query)[0], client.embed_queries(query, instruction="")[0]
        cosine = _cosine(with_it, without)
        if cosine < _SAME:
            note("ok", f"moves a query to cosine {cosine:.3f}")
        else:
            advice = "Something before the model drops what stands before the query: look at proxies"
            note("fail", f"moves a query by nothing (cosine {cosine:.4f})", advice)


def _control_tokens(examination: Examination, model: str, first: int) -> None:
    with examination.checking("control tokens") as note:
        raw = control_tokens(examination, model, samples.FORGED, first)
        sent = control_tokens(examination, model, prompts.embedding_document(samples.FORGED), first)
        if raw is None or sent is None:
            note("skip", "could not check: no /tokenize")
            return
        seen = f"a text with {raw} of them reaches the model with {sent} through this client"
        advice = "Report this: a control token that this package does not know"
        note("fail" if sent else "ok", seen, advice if sent else "")


def _latency(examination: Examination, client: EmbeddingClient) -> None:
    documents = samples.hundred_documents()
    examine_latency(
        examination,
        "query",
        lambda query: client.embed_queries([query]),
        lambda _: client.embed_documents(documents),
    )


def _published(examination: Examination, client: EmbeddingClient, served: ServedModel) -> None:
    if not samples.is_official(served, _OFFICIAL):
        examination.note("published numbers", "skip", f"known for {_OFFICIAL} only")
        return
    with examination.checking("published numbers") as note:
        queries, documents = (
            client.embed_queries(samples.CARD_QUERIES, instruction=prompts.DEFAULT_INSTRUCTION),
            client.embed_documents(samples.CARD_DOCUMENTS),
        )
        cosines = queries @ documents.T
        off = float(np.abs(cosines - samples.CARD_COSINES).max())
        seen = (
            f"{', '.join(f'{value:.4f}' for value in cosines.ravel())}: {off:.4f} off the model card at most"
        )
        if off <= samples.CARD_TOLERANCE:
            note("ok", seen)
        else:
            advice = (
                "Download the model again (qwen3-vllm download embedding); look at --dtype, quantization and "
                "--pooler-config"
            )
            note("fail", seen, advice)


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
