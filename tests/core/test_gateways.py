"""Behind whatever stands in front of vLLM, vectors and scores are right."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.http import load, retries
from tests.fake_vllm import DEAF_TEMPLATE, END_TOKEN, RIGHT_TEMPLATE, FakeVLLM
from tests.faults import Fault, Request, SocketServer, first, honest, instead, serve
from tests.gateways import ANY, BODIES, STATUSES, Gateway

CONTEXT = 700
TEXTS = ["plain", "", "中文", "new\nlines", *(f"text {i}" for i in range(8))]
LONG = "A long text, 很长。 " * 60
EMBEDDING = FakeVLLM("embedding", context=CONTEXT)
MATRYOSHKA = FakeVLLM("embedding", context=CONTEXT, matryoshka=True)
RERANKER = FakeVLLM(context=CONTEXT)
TEMPLATED = FakeVLLM(context=CONTEXT, template=RIGHT_TEMPLATE)
DEAF = FakeVLLM(context=CONTEXT, template=DEAF_TEMPLATE)
V1 = ("/v1/",)
NO_ENCODING = {"encoding_format": ANY, "embed_dtype": ANY, "endianness": ANY}
OPTIONAL = ("encoding_format", "embed_dtype", "endianness", "dimensions", "truncate_prompt_tokens")
LORA: dict[str, object] = {"id": "sql", "parent": "Qwen3", "max_model_len": None}

# Name: shape, options of the client.
Shape = tuple[Gateway, dict[str, object]]
EMBEDDING_SHAPES: dict[str, Shape] = {
    "refuses bytes_only": (Gateway(EMBEDDING, refuses={"encoding_format": ("bytes_only",)}), {}),
    "refuses all but float": (Gateway(EMBEDDING, refuses={"encoding_format": ("bytes_only", "base64")}), {}),
    "refuses the field of the encoding": (Gateway(EMBEDDING, refuses=NO_ENCODING), {}),
    "refuses the field of the encoding, and hides the server's words": (
        Gateway(EMBEDDING, passes=V1, refuses=NO_ENCODING, hides_words=True),
        {},
    ),
    "drops every field that is not OpenAI's own": (
        Gateway(MATRYOSHKA, passes=V1, ignores=OPTIONAL),
        {"dimensions": 8, "wire_dtype": "float16"},
    ),
    "refuses dimensions": (Gateway(EMBEDDING, refuses={"dimensions": ANY}), {"dimensions": 8}),
    "refuses dimensions and bytes_only": (
        Gateway(MATRYOSHKA, refuses={"dimensions": ANY, "encoding_format": ("bytes_only",)}),
        {"dimensions": 8},
    ),
    "leaves the type out": (
        Gateway(EMBEDDING, refuses={"encoding_format": ("bytes_only",)}, ignores=("embed_dtype",)),
        {"wire_dtype": "float16"},
    ),
    "leaves the type out of binary responses": (
        Gateway(EMBEDDING, ignores=("embed_dtype",)),
        {"wire_dtype": "float16"},
    ),
    "passes /v1 only": (Gateway(EMBEDDING, passes=V1), {}),
    "passes embeddings only": (Gateway(EMBEDDING, passes=("/v1/embeddings",)), {"model": "Qwen3"}),
    "passes embeddings only, one text, and hides the server's words": (
        Gateway(EMBEDDING, passes=("/v1/embeddings",), most_texts=1, hides_words=True),
        {"model": "Qwen3", "batch_size": 4},
    ),
    "refuses the field that cuts": (
        Gateway(EMBEDDING, passes=V1, refuses={"truncate_prompt_tokens": ANY}),
        {},
    ),
    "drops the field that cuts": (Gateway(EMBEDDING, passes=V1, ignores=("truncate_prompt_tokens",)), {}),
    "router": (Gateway(EMBEDDING, version="0.1.9", drops=("max_model_len",), blocks=("/classify",)), {}),
    "no length anywhere": (Gateway(EMBEDDING, drops=("max_model_len",)), {}),
    "no length, no /tokenize": (Gateway(EMBEDDING, passes=V1, drops=("max_model_len",)), {}),
    "a LoRA adapter": (
        Gateway(EMBEDDING, names=("sql",), lists=(LORA, {"id": "Qwen3", "max_model_len": CONTEXT})),
        {"model": "sql"},
    ),
    "no counts, names or indexes": (
        Gateway(EMBEDDING, passes=V1, drops=("usage", "model", "object", "index", "id"), lists=("Qwen3",)),
        {},
    ),
    "base path with a version of its own": (Gateway(EMBEDDING, base="/api/v3"), {}),
    "base path without a version": (Gateway(EMBEDDING, base="/openai"), {}),
    "ten texts": (Gateway(EMBEDDING, most_texts=10), {}),
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
            rests=True,
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
    "template, drops the instruction": (Gateway(TEMPLATED, ignores=("instruction",)), {}),
    "template that ignores the instruction, hides the server's words": (
        Gateway(DEAF, hides_words=True, drops=("max_model_len",)),
        {},
    ),
    "refuses the instruction": (Gateway(RERANKER, passes=V1, refuses={"instruction": ANY}), {}),
    "passes /classify only": (
        Gateway(RERANKER, passes=("/classify", "/v1/models", "/tokenize", "/detokenize")),
        {},
    ),
    "passes /classify only, one text": (
        Gateway(RERANKER, passes=("/classify", "/v1/models"), most_texts=1),
        {},
    ),
    "no counts": (Gateway(RERANKER, passes=V1, drops=("usage",)), {}),
    "no length, no /tokenize": (Gateway(RERANKER, passes=V1, drops=("max_model_len",)), {}),
    "no length, no /tokenize, hides the server's words": (
        Gateway(RERANKER, passes=V1, drops=("max_model_len",), hides_words=True),
        {},
    ),
    "/v1/rerank of Jina": (Gateway(RERANKER, passes=V1, rerank="jina"), {}),
    "/v1/rerank of Cohere": (Gateway(RERANKER, passes=V1, rerank="cohere"), {}),
    "litellm": (
        Gateway(
            RERANKER,
            passes=("/v1/rerank", "/v1/models"),
            rerank="cohere",
            names=("rerank",),
            lists=("embed", "rerank"),
            key="sk-1",
            rests=True,
        ),
        {"api_key": "sk-1"},
    ),
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
"""Each shape meets one status of each meaning; all kinds of bodies come with all, each with another shape."""


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat what failed at once."""
    real = retries.retry_delay
    monkeypatch.setattr(load, "retry_delay", lambda *args: real(*args) and 1e-4)


def numbered(shapes: dict[str, Shape]) -> list[object]:
    return [pytest.param(number, shape, id=name) for number, (name, shape) in enumerate(shapes.items())]


def refusals(gateway: Gateway, offset: int) -> Iterator[str]:
    """Let a gateway refuse with each meaning, and another kind of body each time; say with which."""
    kinds = list(BODIES)
    for number, statuses in enumerate(STATUSES, offset):
        kind = kinds[number % len(kinds)]
        status = statuses[offset // len(kinds) % len(statuses)]
        gateway.refusal = (status, kind)
        yield f"{status} {kind}"


@contextmanager
def behind(gateway: Gateway, options: dict[str, object]) -> Iterator[tuple[SocketServer, dict[str, object]]]:
    with serve(gateway) as server:
        address = server.base_url + (gateway.base if gateway.base != "/v1" else "")
        yield server, {"base_url": address, "timeout": 20, **options}


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@cache
def right_vectors(keep: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Of TEXTS; and all that may be of LONG, by where it is cut."""
    vectors = [EMBEDDING.vector(text + END_TOKEN)[:keep] for text in TEXTS]
    ids, end = EMBEDDING.encode(LONG), EMBEDDING.encode(END_TOKEN)
    cuts = [EMBEDDING.vector([*ids[:size], *end])[:keep] for size in range(CONTEXT // 8, CONTEXT)]
    return np.stack(list(map(unit, vectors))), np.stack(list(map(unit, cuts)))


def wrong_vectors(vectors: np.ndarray, options: dict[str, object]) -> str:
    """What is wrong with the vectors of TEXTS and LONG; empty where nothing is."""
    right, cuts = right_vectors(options.get("dimensions"))
    if not np.allclose(vectors[:-1], right, atol=1e-3 if options.get("wire_dtype") else 1e-6):
        return "short texts"
    return "" if (cuts @ vectors[-1]).max() > 0.9999 else "the long text"


@pytest.mark.parametrize(("number", "shape"), numbered(EMBEDDING_SHAPES))
def test_vectors_are_right_whatever_is_refused_and_however(number: int, shape: Shape) -> None:
    gateway, options = shape
    with behind(gateway, options) as (_, all_options):
        wrong = {}
        for refusal in refusals(gateway, number):
            vectors = EmbeddingClient(**all_options).embed_documents([*TEXTS, LONG])
            wrong[refusal] = wrong_vectors(vectors, options)
    assert not any(wrong.values()), wrong


QUERIES = ["q1", "q2"] * (len(TEXTS) // 2)


@cache
def right_scores() -> tuple[list[float], set[float]]:
    """Of TEXTS; and all that may be of LONG, by where it is cut."""
    task = prompts.DEFAULT_INSTRUCTION
    pairs = zip(QUERIES, TEXTS, strict=True)
    scores = [RERANKER.probability(prompts.rerank_prompt(query, text, task)) for query, text in pairs]
    head = RERANKER.encode(prompts.rerank_head("q1", task) + "<Document>: ")
    ids, suffix = RERANKER.encode(LONG), RERANKER.encode(prompts.RERANK_SUFFIX)
    cuts = [RERANKER.probability([*head, *ids[:size], *suffix]) for size in range(1, CONTEXT)]
    return scores, {round(score, 5) for score in cuts}


def wrong_scores(scores: np.ndarray) -> str:
    """What is wrong with the scores of TEXTS and LONG; empty where nothing is."""
    right, cuts = right_scores()
    if not np.allclose(scores[:-1], right, atol=1e-6):
        return "short texts"
    return "" if round(float(scores[-1]), 5) in cuts else "the long text"


@pytest.mark.parametrize(("number", "shape"), numbered(RERANK_SHAPES))
def test_scores_are_right_whatever_is_refused_and_however(number: int, shape: Shape) -> None:
    gateway, options = shape
    with behind(gateway, options) as (_, all_options):
        wrong = {}
        for refusal in refusals(gateway, number):
            wrong[refusal] = wrong_scores(RerankClient(**all_options).score([*QUERIES, "q1"], [*TEXTS, LONG]))
    assert not any(wrong.values()), wrong


# --- a gateway that changes while a client uses it -----------------------------------------------------

LOST_FOR_EMBEDDING: dict[str, tuple[Gateway, dict[str, object], dict[str, object]]] = {
    "bytes_only": (Gateway(EMBEDDING), {"refuses": {"encoding_format": ("bytes_only",)}}, {}),
    "dimensions": (Gateway(MATRYOSHKA), {"refuses": {"dimensions": ANY}}, {"dimensions": 8}),
    "/tokenize": (Gateway(EMBEDDING), {"passes": V1}, {}),
    "a field that cuts": (Gateway(EMBEDDING, passes=V1), {"refuses": {"truncate_prompt_tokens": ANY}}, {}),
    "the effect of the field that cuts": (
        Gateway(EMBEDDING, passes=V1),
        {"ignores": ("truncate_prompt_tokens",)},
        {},
    ),
    "many texts": (Gateway(EMBEDDING, most_texts=10), {"most_texts": 3}, {}),
}
LOST_FOR_RERANKING: dict[str, tuple[Gateway, dict[str, object], dict[str, object]]] = {
    "/classify": (Gateway(RERANKER), {"blocks": ("/classify",)}, {}),
    "/classify, with a template": (Gateway(TEMPLATED), {"blocks": ("/classify",)}, {}),
    "/tokenize": (Gateway(RERANKER), {"blocks": ("/tokenize", "/detokenize")}, {}),
    "/v1/score": (Gateway(RERANKER), {"blocks": ("/v1/score",)}, {}),
    "/v1/score for /v1/rerank": (Gateway(RERANKER, passes=V1), {"rerank": "jina"}, {}),
    "/v1/rerank for /v1/score": (Gateway(RERANKER, passes=V1, rerank="jina"), {"rerank": None}, {}),
    "the instruction": (Gateway(TEMPLATED), {"refuses": {"instruction": ANY}}, {}),
    "many texts": (Gateway(RERANKER, most_texts=3), {"most_texts": 2}, {}),
}
SOME_REFUSALS = ((409, "HTML"), (400, "plain"), (500, "empty"))


@pytest.mark.parametrize(
    ("gateway", "change", "options"), LOST_FOR_EMBEDDING.values(), ids=LOST_FOR_EMBEDDING
)
def test_vectors_are_right_in_the_call_in_which_something_is_lost(
    gateway: Gateway, change: dict[str, object], options: dict[str, object]
) -> None:
    for refusal in SOME_REFUSALS:
        lost = replace(gateway, refusal=refusal)
        with behind(lost, options) as (server, all_options):
            client = EmbeddingClient(**all_options)
            client.embed_documents([*TEXTS, LONG])
            for name, value in change.items():
                setattr(lost, name, value)

            assert not wrong_vectors(client.embed_documents([*TEXTS, LONG]), options), refusal

            server.requests.clear()
            client.embed_documents(TEXTS)
            limit = lost.most_texts or len(TEXTS)
            assert len(server.requests) == -(-len(TEXTS) // limit)  # and nothing is refused again


@pytest.mark.parametrize(
    ("gateway", "change", "options"), LOST_FOR_RERANKING.values(), ids=LOST_FOR_RERANKING
)
def test_scores_are_right_in_the_call_in_which_something_is_lost(
    gateway: Gateway, change: dict[str, object], options: dict[str, object]
) -> None:
    for refusal in SOME_REFUSALS:
        lost = replace(gateway, refusal=refusal)
        with behind(lost, options) as (_, all_options):
            client = RerankClient(**all_options)
            client.score([*QUERIES, "q1"], [*TEXTS, LONG])
            for name, value in change.items():
                setattr(lost, name, value)

            assert not wrong_scores(client.score([*QUERIES, "q1"], [*TEXTS, LONG])), refusal


def test_how_many_texts_are_taken_is_known_after_one_call() -> None:
    texts = [f"text {number}" for number in range(100)]
    with serve(Gateway(EMBEDDING, most_texts=5, refusal=(422, "JSON"))) as server:
        client = EmbeddingClient(base_url=server.base_url, batch_size=10)
        client.embed_documents(texts)
        server.requests.clear()

        client.embed_documents([f"more {text}" for text in texts])

        assert [len(body["input"]) for body in server.bodies("/v1/embeddings")] == [5] * 20


def test_finished_prompts_of_several_queries_share_a_request_beside_v1_rerank() -> None:
    with serve(Gateway(DEAF, rerank="jina")) as server:
        scores = RerankClient(base_url=server.base_url).score(["q1", "q2"], ["a", "b"], instruction="Judge")
        sent = server.bodies("/classify")[-1]["input"]

    assert sent == [prompts.rerank_prompt("q1", "a", "Judge"), prompts.rerank_prompt("q2", "b", "Judge")]
    np.testing.assert_allclose(scores, [DEAF.probability(prompt) for prompt in sent], atol=1e-6)


# --- what says nothing of a form, and what is the text's own fault -------------------------------------


@pytest.mark.parametrize("status", [408, 429, 503, 504])
def test_who_is_busy_lacks_nothing(status: int) -> None:
    with serve(MATRYOSHKA, first(1, instead(status), "/v1/embeddings")) as server:
        EmbeddingClient(base_url=server.base_url, dimensions=8).embed_documents(["a"])
        sent = server.bodies("/v1/embeddings")
    assert {(body["encoding_format"], body["dimensions"]) for body in sent} == {("bytes_only", 8)}

    for path in ("/v1/score", "/classify", "/tokenize"):
        with serve(TEMPLATED, first(1, instead(status), path)) as server:
            RerankClient(base_url=server.base_url).score("q", ["a"])
            assert "/v1/rerank" not in server.paths()
            assert server.bodies("/v1/score")[-1]["text_2"] == ["a"]


@pytest.mark.parametrize("status", [402, 403, 404, 409, 422, 500])
def test_texts_that_a_gateway_blocks_take_no_others_with_them(status: int) -> None:
    def choose(request: Request) -> Fault:
        return instead(status, "<html>Blocked: SQL injection</html>") if b"DROP" in request.body else honest

    blocked = list(range(3, 48, 4))  # one in each request
    texts = [f"DROP TABLE {number}" if number in blocked else f"text {number}" for number in range(48)]
    with serve(EMBEDDING, choose) as server, pytest.raises(errors.Qwen3VLLMError) as caught:
        EmbeddingClient(base_url=server.base_url, batch_size=4).embed_documents(texts)
    assert list(caught.value.errors) == blocked
    with serve(RERANKER, choose) as server, pytest.raises(errors.Qwen3VLLMError) as caught:
        RerankClient(base_url=server.base_url, batch_size=4).score("q", texts)
    assert list(caught.value.errors) == blocked


@pytest.mark.parametrize(("status", "kind"), [(500, "JSON"), (403, "plain"), (200, "JSON")])
def test_what_every_form_ends_in_is_the_error_and_says_what_was_tried(status: int, kind: str) -> None:
    blocks = ("/v1/embeddings", "/v1/score", "/v1/rerank", "/classify")
    with serve(Gateway(EMBEDDING, blocks=blocks, refusal=(status, kind))) as server:
        with pytest.raises(
            errors.Qwen3VLLMError, match=r"Tried without success: .*bytes_only; .*format unset"
        ):
            EmbeddingClient(base_url=server.base_url).embed_documents(["a"])
        with pytest.raises(errors.Qwen3VLLMError, match=r"Tried without success: /v1/score; .*/v1/rerank"):
            RerankClient(base_url=server.base_url).score("q", ["a"])


# --- names and lengths ---------------------------------------------------------------------------------


def test_a_lora_adapter_has_the_context_of_its_parent() -> None:
    lists = (LORA, {"id": "Qwen3", "max_model_len": CONTEXT})
    with serve(Gateway(EMBEDDING, names=("sql",), lists=lists)) as server:
        client = EmbeddingClient(base_url=server.base_url, model="sql")
        assert not wrong_vectors(client.embed_documents([*TEXTS, LONG]), {})
        # Counted and cut before it was sent: alone were a letter, what asks for the limit, and the long text.
        assert [len(body["input"]) for body in server.bodies("/v1/embeddings")].count(1) == 3


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of the fake server, as a tokenizer.json: a byte is a token, and so is a control token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(prompts.CONTROL_TOKENS))
    file: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@pytest.mark.parametrize(
    "passed", [{"passes": V1}, {"blocks": ("/tokenize", "/detokenize")}], ids=["/v1", "all"]
)
@pytest.mark.parametrize("server", [RERANKER, TEMPLATED], ids=["no template", "template"])
def test_a_tokenizer_cuts_documents_where_the_server_does_not_count(
    server: FakeVLLM, passed: dict[str, Any], byte_tokenizer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["A long text. " * 60, "short", "another long text " * 60]
    with serve(server) as counting:
        right = RerankClient(base_url=counting.base_url).score("q", texts)
        right_cut = RerankClient(base_url=counting.base_url, max_tokens_per_doc=9).score("q", texts)

    with serve(Gateway(server, **passed)) as gateway:
        for path in (byte_tokenizer, byte_tokenizer.parent):
            client = RerankClient(base_url=gateway.base_url, tokenizer=path)
            np.testing.assert_allclose(client.score("q", texts), right, atol=1e-6)
        cut = client.with_options(max_tokens_per_doc=9).score("q", texts)
        np.testing.assert_allclose(cut, right_cut, atol=1e-6)
    assert "cut by bytes" not in caplog.text


@pytest.mark.parametrize("content", [None, "{}", "\udcff"])
def test_a_tokenizer_that_cannot_be_loaded_is_an_error_that_names_it(
    content: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content, "utf-8", "surrogateescape")
    with serve(Gateway(RERANKER, passes=V1)) as server:
        client = RerankClient(base_url=server.base_url, tokenizer=tmp_path)
        assert client.score("q", ["short"]).shape == (1,)
        with pytest.raises(errors.ConfigurationError, match=r"tokenizer: .*tokenizer\.json"):
            client.score("q", [LONG])


def test_a_tokenizer_without_its_package_is_an_error_that_says_what_to_install(
    byte_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with serve(Gateway(RERANKER, passes=V1)) as server:
        client = RerankClient(base_url=server.base_url, tokenizer=byte_tokenizer.parent / "." / "x.json")
        with pytest.raises(errors.ConfigurationError, match=r"pip install 'qwen3-vllm\[tokenizers\]'"):
            client.score("q", [LONG])
