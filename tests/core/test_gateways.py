"""Behind whatever stands in front of vLLM, vectors and scores are right."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core import prompts
from tests.fake_vllm import END_TOKEN, RIGHT_TEMPLATE, FakeVLLM
from tests.faults import SocketServer, serve
from tests.gateways import ANY, BODIES, STATUSES, Gateway

pytestmark = pytest.mark.usefixtures("quick_retries")

CONTEXT = 1200
TEXTS = ["plain", "", "中文", "new\nlines", *(f"text {i}" for i in range(8))]
LONG = "A long text, 很长。 " * 200
EMBEDDING = FakeVLLM("embedding", context=CONTEXT)
RERANKER = FakeVLLM(context=CONTEXT)
TEMPLATED = FakeVLLM(context=CONTEXT, template=RIGHT_TEMPLATE)
V1 = ("/v1/",)

# Name: shape, options of the client.
Shape = tuple[Gateway, dict[str, object]]
EMBEDDING_SHAPES: dict[str, Shape] = {
    "refuses bytes_only": (Gateway(EMBEDDING, refuses={"encoding_format": ("bytes_only",)}), {}),
    "refuses all but float": (Gateway(EMBEDDING, refuses={"encoding_format": ("bytes_only", "base64")}), {}),
    "refuses the field of the encoding": (
        Gateway(EMBEDDING, refuses={"encoding_format": ANY, "embed_dtype": ANY, "endianness": ANY}),
        {},
    ),
    "refuses dimensions": (Gateway(EMBEDDING, refuses={"dimensions": ANY}), {"dimensions": 8}),
    "refuses dimensions and bytes_only": (
        Gateway(
            replace(EMBEDDING, matryoshka=True),
            refuses={"dimensions": ANY, "encoding_format": ("bytes_only",)},
        ),
        {"dimensions": 8},
    ),
    "leaves the type out": (
        Gateway(EMBEDDING, refuses={"encoding_format": ("bytes_only",)}, ignores=("embed_dtype",)),
        {"wire_dtype": "float16"},
    ),
    "passes /v1 only": (Gateway(EMBEDDING, passes=V1), {}),
    "passes embeddings only": (Gateway(EMBEDDING, passes=("/v1/embeddings",)), {"model": "Qwen3"}),
    "passes embeddings only, and hides the server's words": (
        Gateway(EMBEDDING, passes=("/v1/embeddings",), hides_words=True),
        {"model": "Qwen3"},
    ),
    "refuses the field that cuts": (
        Gateway(EMBEDDING, passes=V1, refuses={"truncate_prompt_tokens": ANY}),
        {},
    ),
    "drops the field that cuts": (Gateway(EMBEDDING, passes=V1, ignores=("truncate_prompt_tokens",)), {}),
    "router": (Gateway(EMBEDDING, version="0.1.9", drops=("max_model_len",), blocks=("/classify",)), {}),
    "no length anywhere": (Gateway(EMBEDDING, drops=("max_model_len",)), {}),
    "no length, no /tokenize": (Gateway(EMBEDDING, passes=V1, drops=("max_model_len",)), {}),
    "no counts": (Gateway(EMBEDDING, passes=V1, drops=("usage",)), {}),
    "base path with a version of its own": (Gateway(EMBEDDING, base="/api/v3"), {}),
    "base path without a version": (Gateway(EMBEDDING, base="/openai"), {}),
    "ten texts": (Gateway(EMBEDDING, most_texts=10), {}),
    "one text": (Gateway(EMBEDDING, passes=V1, most_texts=1), {}),
    "an alias that is not listed": (
        Gateway(EMBEDDING, names=("team/embed",), lists=("other", "team/*")),
        {"model": "team/embed"},
    ),
    "several listed, one of them right": (
        Gateway(EMBEDDING, names=("qwen3-embed",), lists=("gpt", "reranker", "qwen3-embed", "*")),
        {},
    ),
    "litellm": (
        Gateway(
            EMBEDDING,
            passes=V1,
            names=("embed",),
            lists=("embed",),
            key="sk-1",
            version="1.108",
            refuses={"encoding_format": ("bytes_only",), "dimensions": ANY},
        ),
        {"api_key": "sk-1", "dimensions": 8},
    ),
}
RERANK_SHAPES: dict[str, Shape] = {
    "passes /v1 only": (Gateway(RERANKER, passes=V1), {}),
    "passes scores only": (Gateway(RERANKER, passes=("/v1/score",)), {"model": "Qwen3"}),
    "router": (Gateway(RERANKER, version="0.1.9", drops=("max_model_len",), blocks=("/classify",)), {}),
    "template, router": (Gateway(TEMPLATED, drops=("max_model_len",), blocks=("/classify",)), {}),
    "template, passes /v1 only": (Gateway(TEMPLATED, passes=V1), {}),
    "refuses the instruction": (Gateway(RERANKER, passes=V1, refuses={"instruction": ANY}), {}),
    "passes /classify only": (
        Gateway(RERANKER, passes=("/classify", "/v1/models", "/tokenize", "/detokenize")),
        {},
    ),
    "no counts": (Gateway(RERANKER, passes=V1, drops=("usage",)), {}),
    "no length, no /tokenize": (Gateway(RERANKER, passes=V1, drops=("max_model_len",)), {}),
    "/v1/rerank of Jina": (Gateway(RERANKER, passes=V1, rerank="jina"), {}),
    "/v1/rerank of Cohere": (Gateway(RERANKER, passes=V1, rerank="cohere"), {}),
    "/v1/rerank without counts": (Gateway(RERANKER, passes=V1, rerank="jina", drops=("usage",)), {}),
    "template, /v1/rerank of Jina": (Gateway(TEMPLATED, passes=V1, rerank="jina"), {}),
    "template, /v1/rerank of Cohere": (Gateway(TEMPLATED, passes=V1, rerank="cohere"), {}),
    "template, /v1/rerank without counts": (
        Gateway(TEMPLATED, passes=V1, rerank="jina", drops=("usage",)),
        {"template": "server"},
    ),
    "/v1/rerank of what is not listed": (
        Gateway(RERANKER, passes=("/v1/rerank",), rerank="cohere", names=("r",)),
        {"model": "r"},
    ),
    "base path without a version": (Gateway(RERANKER, base="/openai"), {}),
    "ten texts": (Gateway(RERANKER, most_texts=10), {}),
    "two texts, /v1/rerank": (Gateway(RERANKER, passes=V1, rerank="jina", most_texts=2), {}),
    "several listed, one of them right": (
        Gateway(RERANKER, names=("qwen3-rerank",), lists=("gpt", "embed", "qwen3-rerank")),
        {},
    ),
}


def refusals(shapes: dict[str, Shape], name: str) -> Iterator[str]:
    """Let a gateway refuse with each status, and say how; four shapes see all kinds of body with each."""
    gateway, _ = shapes[name]
    kinds = itertools.islice(itertools.cycle(BODIES), list(shapes).index(name), None)
    for status, kind in zip(STATUSES, kinds, strict=False):
        gateway.refusal = (status, kind)
        yield f"{status} {kind}"


@contextmanager
def behind(shape: Shape) -> Iterator[tuple[Gateway, SocketServer, dict[str, object]]]:
    gateway, options = shape
    with serve(gateway) as server:
        address = server.base_url + (gateway.base if gateway.base != "/v1" else "")
        yield gateway, server, {"base_url": address, "timeout": 20, **options}


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@cache
def right_cuts(keep: int | None) -> np.ndarray:
    """The vectors of LONG, cut to any length that a cut may leave."""
    encoded, end = EMBEDDING.encode(LONG), EMBEDDING.encode(END_TOKEN)
    cuts = ([*encoded[:size], *end] for size in range(CONTEXT // 4, CONTEXT))
    return np.stack([unit(EMBEDDING.vector(cut)[:keep]) for cut in cuts])


@cache
def right_cut_scores() -> set[float]:
    """The scores of LONG for "q1", cut to any length."""
    head = RERANKER.encode(prompts.rerank_head("q1", prompts.DEFAULT_INSTRUCTION) + "<Document>: ")
    text, tail = RERANKER.encode(LONG), RERANKER.encode(prompts.RERANK_SUFFIX)
    return {round(RERANKER.probability([*head, *text[:size], *tail]), 5) for size in range(1, CONTEXT)}


@pytest.mark.parametrize("name", EMBEDDING_SHAPES)
def test_vectors_are_right_whatever_is_refused_and_however(name: str) -> None:
    with behind(EMBEDDING_SHAPES[name]) as (gateway, _, options):
        keep = options.get("dimensions")
        assert keep is None or isinstance(keep, int)
        expected = [unit(gateway.server.vector(text + END_TOKEN)[:keep]) for text in TEXTS]
        wrong = []
        for refusal in refusals(EMBEDDING_SHAPES, name):
            vectors = EmbeddingClient(**options).embed_documents([*TEXTS, LONG])
            tolerance = 1e-3 if options.get("wire_dtype") else 1e-6
            if not np.allclose(vectors[:-1], expected, atol=tolerance):
                wrong.append(refusal)
            elif (right_cuts(keep) @ vectors[-1]).max() < 0.9999:
                wrong.append(f"{refusal}, long")
        assert not wrong


def scores_of(fake: FakeVLLM, query: str, documents: list[str]) -> list[float]:
    return [fake.probability(prompts.rerank_prompt(query, d, prompts.DEFAULT_INSTRUCTION)) for d in documents]


@pytest.mark.parametrize("name", RERANK_SHAPES)
def test_scores_are_right_whatever_is_refused_and_however(name: str) -> None:
    queries = ["q1", "q2"] * (len(TEXTS) // 2)
    with behind(RERANK_SHAPES[name]) as (gateway, _, options):
        fake = gateway.server
        expected = [scores_of(fake, q, [d])[0] for q, d in zip(queries, TEXTS, strict=True)]
        wrong = []
        for refusal in refusals(RERANK_SHAPES, name):
            scores = RerankClient(**options).score([*queries, "q1"], [*TEXTS, LONG])
            if not np.allclose(scores[:-1], expected, atol=1e-6):
                wrong.append(refusal)
            elif round(float(scores[-1]), 5) not in right_cut_scores():
                wrong.append(f"{refusal}, long")
        assert not wrong
