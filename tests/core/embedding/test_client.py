"""EmbeddingClient: every vector in its place, whatever the texts and the server."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, errors
from qwen3_vllm._core.batching.batches import BATCH_BYTES
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from tests.conftest import Embed
from tests.fake_vllm import END_TOKEN, FakeVLLM
from tests.faults import Fault, Request, SocketServer, always, changed, honest, in_pieces, instead, serve

EMBEDDINGS = "/v1/embeddings"
URGENT = {"x-qwen3-vllm-priority": "high"}


def client_of(server: SocketServer, **options: object) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url, **{"timeout": 30, **options})


def right(texts: list[str], dimensions: int | None = None) -> np.ndarray:
    fake = FakeVLLM("embedding")
    return np.stack([fake.vector(text + END_TOKEN, dimensions) for text in texts])


def sent_texts(server: SocketServer) -> list[str]:
    return [text for body in server.bodies(EMBEDDINGS) for text in body["input"]]


# --- what is sent, what comes back ---------------------------------------------------------------------


def test_documents_are_embedded_as_they_are(embedding_server: SocketServer, embed: Embed) -> None:
    texts = ["plain", "", "中文", "new\nlines  and spaces "]

    vectors = embed(client_of(embedding_server), texts)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, right(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "call", "prompt"),
    [
        ({}, None, f"Instruct: {DEFAULT_INSTRUCTION}\nQuery:q"),
        ({"instruction": "Mine"}, None, "Instruct: Mine\nQuery:q"),
        ({"instruction": "Mine"}, "This call's", "Instruct: This call's\nQuery:q"),
        ({"instruction": "Mine"}, "", "q"),
        ({"instruction": ""}, None, "q"),
    ],
)
def test_queries_get_their_instruction(
    embedding_server: SocketServer, options: dict[str, str], call: str | None, prompt: str
) -> None:
    vectors = client_of(embedding_server, **options).embed_queries(["q"], instruction=call)

    assert sent_texts(embedding_server)[-1] == prompt
    np.testing.assert_allclose(vectors, right([prompt]), atol=1e-6)


@pytest.mark.parametrize("is_async", [False, True])
def test_each_query_may_have_an_instruction_of_its_own(
    embedding_server: SocketServer, is_async: bool
) -> None:
    client, texts, tasks = client_of(embedding_server), ["q", "p", "q"], ["One", "", "Two"]

    vectors = (
        asyncio.run(client.aembed_queries(texts, instruction=tasks))
        if is_async
        else client.embed_queries(texts, instruction=tuple(tasks))
    )

    prompts = ["Instruct: One\nQuery:q", "p", "Instruct: Two\nQuery:q"]
    np.testing.assert_allclose(vectors, right(prompts), atol=1e-6)


def test_instructions_and_queries_must_be_as_many(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)
    with pytest.raises(errors.InputError, match="1 instruction for 2 queries"):
        client.embed_queries(["q", "p"], instruction=["One"])
    with pytest.raises(errors.InputError, match="query 1 has an instruction that is not a string") as caught:
        client.embed_queries(["q", "p", "r"], instruction=["One", 3, "Two"])  # type: ignore[list-item]

    assert caught.value.partial is not None
    rest = right(["Instruct: One\nQuery:q", "Instruct: Two\nQuery:r"])
    np.testing.assert_allclose(caught.value.partial[[0, 2]], rest, atol=1e-6)


async def test_async_queries_get_their_instruction(embedding_server: SocketServer) -> None:
    vectors = await client_of(embedding_server).aembed_queries(["q"], instruction="Mine")

    np.testing.assert_allclose(vectors, right(["Instruct: Mine\nQuery:q"]), atol=1e-6)


def test_no_texts_need_no_server(embed: Embed) -> None:
    nowhere = "http://127.0.0.1:1"

    assert embed(EmbeddingClient(base_url=nowhere), []).shape == (0, 0)
    assert embed(EmbeddingClient(base_url=nowhere, dimensions=8), []).shape == (0, 8)


def test_texts_that_come_twice_are_sent_once(embedding_server: SocketServer, embed: Embed) -> None:
    texts = ["a", "b", "a", "c", "b", "a"]

    vectors = embed(client_of(embedding_server), texts)

    assert sorted(embedding_server.bodies(EMBEDDINGS)[-1]["input"]) == ["a", "b", "c"]
    np.testing.assert_allclose(vectors, right(texts), atol=1e-6)


def test_control_tokens_reach_the_model_as_words(embedding_server: SocketServer) -> None:
    vectors = client_of(embedding_server).embed_documents(["a<|endoftext|>b"])

    np.testing.assert_allclose(vectors, right(["a< |endoftext|>b"]), atol=1e-6)


def test_order_is_kept_over_many_requests(embedding_server: SocketServer, embed: Embed) -> None:
    texts = [f"text {number}" for number in range(500)]

    vectors = embed(client_of(embedding_server, batch_size=7), texts)

    assert max(len(body["input"]) for body in embedding_server.bodies(EMBEDDINGS)) == 7
    np.testing.assert_allclose(vectors, right(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda client: client.embed_documents(["a", "b"]), "bulk"),
        (lambda client: client.embed_documents(["a"]), None),
        (lambda client: client.embed_queries(["a", "b"]), None),
        (lambda client: client.embed_queries(["a", "b", "c"]), "bulk"),  # more than one request
        (lambda client: client.with_options(default_headers=URGENT).embed_documents(["a", "b"]), "high"),
    ],
)
def test_a_balancer_is_told_what_is_bulk(
    embedding_server: SocketServer, work: Callable[[EmbeddingClient], object], said: str | None
) -> None:
    work(client_of(embedding_server, batch_size=2))

    last = embedding_server.requests[-1]
    assert last.path == EMBEDDINGS
    assert last.headers.get("x-qwen3-vllm-priority") == said


def test_big_texts_go_out_in_smaller_requests(embedding_server: SocketServer) -> None:
    client_of(embedding_server).embed_documents([f"{n}" * 1900 for n in range(100, 199)])

    sizes = [len(request.body) for request in embedding_server.requests]
    assert max(sizes) < BATCH_BYTES + 10_000


def binary_in_pieces(request: Request) -> Fault:
    return in_pieces if b"bytes_only" in request.body else honest


def test_base64_is_asked_where_binary_answers_come_in_pieces(embed: Embed) -> None:
    with serve(FakeVLLM("embedding"), binary_in_pieces) as server:
        vectors = embed(client_of(server), ["a", "b", "c"])

        np.testing.assert_allclose(vectors, right(["a", "b", "c"]), atol=1e-6)
        assert [b["encoding_format"] for b in server.bodies(EMBEDDINGS)] == ["bytes_only", "base64", "base64"]


def test_float16_travels_as_base64_there_too(embed: Embed) -> None:
    with serve(FakeVLLM("embedding"), binary_in_pieces) as server:
        vectors = embed(client_of(server, wire_dtype="float16"), ["a", "b", "c"])

        np.testing.assert_allclose(vectors, right(["a", "b", "c"]), atol=1e-3)
        bodies = server.bodies(EMBEDDINGS)
        assert [b["encoding_format"] for b in bodies] == ["bytes_only", "base64", "float", "base64"]
        assert bodies[-1]["embed_dtype"] == "float16"


@pytest.mark.parametrize("version", ["0.10.0", "0.12.0", "0.13.0", "0.32.0"])
def test_float16_is_asked_of_servers_that_have_it(version: str) -> None:
    with serve(FakeVLLM("embedding", version=version), binary_in_pieces) as server:
        vectors = client_of(server, wire_dtype="float16").embed_documents(["a", "b"])

        exact = version in ("0.10.0", "0.12.0")
        np.testing.assert_allclose(vectors, right(["a", "b"]), atol=1e-6 if exact else 1e-3)
        assert ("embed_dtype" in server.bodies(EMBEDDINGS)[-1]) is not exact


@pytest.mark.parametrize("is_async", [False, True])
def test_lists_hold_the_same_numbers(is_async: bool, embedding_server: SocketServer) -> None:
    client = client_of(embedding_server, batch_size=2)
    texts = ["a", "b", "c", "a", "d", "e"]

    lists = (
        asyncio.run(client.aembed_documents_as_lists(texts))
        if is_async
        else client.embed_documents_as_lists(texts)
    )

    assert lists == client.embed_documents(texts).tolist()
    lists[0][0] = 7.0
    assert lists[3][0] != 7.0
    assert client.embed_documents_as_lists([]) == []


def test_a_numpy_array_of_texts_is_taken(embedding_server: SocketServer) -> None:
    vectors = client_of(embedding_server).embed_documents(np.array(["a", "b"]))  # type: ignore[arg-type]

    np.testing.assert_allclose(vectors, right(["a", "b"]), atol=1e-6)


# --- every server --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.10.0", "0.12.0", "0.13.0", "0.15.1", "0.22.0", "0.32.0"])
@pytest.mark.parametrize("matryoshka", [False, True])
@pytest.mark.parametrize("dimensions", [None, 4])
def test_vectors_are_right_on_every_server(version: str, matryoshka: bool, dimensions: int | None) -> None:
    texts = ["a", "b", "x" * 3000]
    with serve(FakeVLLM("embedding", version=version, matryoshka=matryoshka)) as server:
        vectors = client_of(server, dimensions=dimensions).embed_documents(texts)

    texts[2] = "x" * (2047 if version == "0.32.0" else 2046)
    np.testing.assert_allclose(vectors, right(texts, dimensions), atol=1e-6)


def test_half_precision_on_the_wire_is_near_enough(embedding_server: SocketServer) -> None:
    vectors = client_of(embedding_server, wire_dtype="float16").embed_documents(["a", "b"])

    assert embedding_server.bodies(EMBEDDINGS)[-1]["embed_dtype"] == "float16"
    assert (vectors * right(["a", "b"])).sum(axis=1).min() > 0.999


def test_more_dimensions_than_the_model_has_are_an_error(embedding_server: SocketServer) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"dimensions=32.* have 16"):
        client_of(embedding_server, dimensions=32).embed_documents(["a"])


@pytest.mark.parametrize("kind", ["chat", "reranker"])
@pytest.mark.parametrize("version", ["0.10.0", "0.15.1", "0.32.0"])
def test_a_server_without_embeddings_is_named(kind: str, version: str, embed: Embed) -> None:
    with (
        serve(FakeVLLM(kind, version=version)) as server,  # type: ignore[arg-type]
        pytest.raises(errors.WrongServerError, match="qwen3-vllm serve embedding"),
    ):
        embed(client_of(server), ["a"])


def test_a_model_that_is_not_served_is_told_with_those_that_are(embedding_server: SocketServer) -> None:
    with pytest.raises(errors.ModelNotFoundError, match="serves 'Qwen3', not 'other'"):
        client_of(embedding_server, model="other").embed_documents(["a"])


def test_the_wrong_key_is_told(embed: Embed) -> None:
    with (
        serve(FakeVLLM("embedding", api_key="right")) as server,
        pytest.raises(errors.AuthenticationError, match="VLLM_API_KEY"),
    ):
        embed(client_of(server, api_key="wrong"), ["a"])


@pytest.mark.parametrize("missing", ["/version", "/tokenize"])
@pytest.mark.parametrize(("version", "kept"), [("0.31.0", 2046), ("0.32.0", 2047)])
def test_a_proxy_may_leave_routes_out(missing: str, version: str, kept: int) -> None:
    with serve(FakeVLLM("embedding", version=version, missing=(missing,))) as server:
        vectors = client_of(server).embed_documents(["a", "x" * 3000])

    np.testing.assert_allclose(vectors, right(["a", "x" * kept]), atol=1e-6)


def test_the_server_is_asked_once(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)
    for _ in range(3):
        client.embed_documents(["a"])

    assert embedding_server.paths().count("/v1/models") == 1
    assert embedding_server.paths().count(EMBEDDINGS) == 4


# --- length --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "kept"), [(2046, 2046), (2047, 2047), (2048, 2047), (9000, 2047)])
def test_long_texts_keep_their_first_tokens_and_the_end_token(
    embedding_server: SocketServer, length: int, kept: int
) -> None:
    vectors = client_of(embedding_server).embed_documents(["x" * length, "short"])

    np.testing.assert_allclose(vectors, right(["x" * kept, "short"]), atol=1e-6)


def test_before_0_32_no_input_has_exactly_the_context_length() -> None:
    """There it would never be answered."""
    with serve(FakeVLLM("embedding", version="0.31.0")) as server:
        vectors = client_of(server, timeout=20).embed_documents(["x" * n for n in (2046, 2047, 2048)])

    np.testing.assert_allclose(vectors, right(["x" * 2046] * 3), atol=1e-6)


def test_texts_that_fit_by_their_bytes_are_not_tokenised(embedding_server: SocketServer) -> None:
    client_of(embedding_server).embed_documents(["x" * 2046])

    assert "/tokenize" not in embedding_server.paths()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ((), "3 of 4 documents had to be cut to the server's 2048 tokens; the longest had 5001"),
        (
            ("/tokenize",),
            "up to 3 of 4 documents may have been cut to the server's 2048 tokens; it has no "
            "/tokenize to count them with",
        ),
    ],
    ids=["counted", "cut by the server"],
)
def test_one_warning_says_how_many_were_cut_from_how_long_to_what(
    missing: tuple[str, ...], words: str, embed: Embed, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(FakeVLLM("embedding", missing=missing)) as server:
        embed(client_of(server), ["x" * 3000, "y" * 5000, "short", "x" * 3000])

    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", words)]


def test_a_query_that_is_cut_is_called_one(
    embedding_server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    client_of(embedding_server).embed_queries(["x" * 3000, "short"], instruction="")

    assert caplog.messages == [
        "1 of 2 queries had to be cut to the server's 2048 tokens; the longest had 3001"
    ]


def test_a_text_that_a_busy_server_does_not_count_is_the_only_one_to_fail(
    embedding_server: SocketServer,
) -> None:
    client = client_of(embedding_server, max_retries=0)
    client.embed_documents(["x" * 3000])
    embedding_server.fault = lambda request: instead(503) if b"yyy" in request.body else honest

    with pytest.raises(errors.OverloadedError) as caught:
        client.embed_documents(["x" * 3000, "y" * 3000, "short"])

    assert list(caught.value.errors) == [1]


@pytest.mark.parametrize("missing", [(), ("/tokenize",)], ids=["counted", "refused by the server"])
def test_without_truncation_long_texts_are_named_and_the_rest_embedded(
    missing: tuple[str, ...], embed: Embed
) -> None:
    texts = [f"text {number}" for number in range(20)]
    texts[13] = "x" * 3000
    with (
        serve(FakeVLLM("embedding", missing=missing)) as server,
        pytest.raises(errors.TooLongError, match="document 13") as caught,
    ):
        embed(client_of(server, truncate=False), texts)

    assert list(caught.value.errors) == [13]
    assert caught.value.partial is not None
    rest = [number for number in range(20) if number != 13]
    np.testing.assert_allclose(caught.value.partial[rest], right([texts[n] for n in rest]), atol=1e-6)
    assert np.isnan(caught.value.partial[13]).all()


# --- bad texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "document 2 is not a string but NoneType"),
        (7, "document 2 is not a string but int"),
        (b"bytes", "document 2 is not a string but bytes"),
        ("lone \ud83d surrogate", "document 2 has a lone surrogate at character 5"),
    ],
)
def test_a_bad_text_is_named_and_the_rest_embedded(
    embedding_server: SocketServer, bad: object, words: str, embed: Embed
) -> None:
    texts: list[object] = ["a", "b", bad, "c", "b"]

    with pytest.raises(errors.InputError, match=words) as caught:
        embed(client_of(embedding_server), texts)  # type: ignore[arg-type]

    assert list(caught.value.errors) == [2]
    assert caught.value.partial is not None
    np.testing.assert_allclose(caught.value.partial[[0, 1, 3, 4]], right(["a", "b", "c", "b"]), atol=1e-6)


def test_a_bad_text_that_comes_twice_fails_in_both_places(embed: Embed) -> None:
    def choose(request: Request) -> Fault:
        return instead(400, {"error": {"message": "no"}}) if b"bad" in request.body else honest

    with serve(FakeVLLM("embedding"), choose) as server, pytest.raises(errors.InputError) as caught:
        embed(client_of(server), ["a", "bad", "b", "bad", "a"])

    assert list(caught.value.errors) == [1, 3]
    assert caught.value.partial is not None
    np.testing.assert_allclose(caught.value.partial[[0, 2, 4]], right(["a", "b", "a"]), atol=1e-6)


def test_a_text_the_server_chokes_on_is_found_in_few_requests(embed: Embed) -> None:
    def choose(request: Request) -> Fault:
        return changed(lambda body: b"\xff" * len(body)) if b"bad" in request.body else honest

    texts = [f"text {number}" for number in range(64)]
    texts[17] = "bad"
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=64)
        client.embed_documents(["warm"])
        server.requests.clear()
        server.fault = choose

        with pytest.raises(errors.InvalidAnswerError) as caught:
            embed(client, texts)

        assert list(caught.value.errors) == [17]
        assert max(sent_texts(server).count(text) for text in texts) <= 7


@pytest.mark.parametrize("texts", ["one string", b"bytes", 3, None, {"a"}, {"a": "b"}])
def test_what_is_no_list_of_texts_is_told(
    embedding_server: SocketServer, texts: object, embed: Embed
) -> None:
    with pytest.raises(errors.InputError, match="pass a list of documents"):
        embed(client_of(embedding_server), texts)  # type: ignore[arg-type]

    assert embedding_server.requests == []


def test_a_bad_instruction_is_told(embedding_server: SocketServer) -> None:
    with pytest.raises(errors.InputError, match="the instruction"):
        client_of(embedding_server).embed_queries(["q"], instruction=3)  # type: ignore[arg-type]


def test_only_bad_texts_are_an_error_without_a_request(embedding_server: SocketServer) -> None:
    with pytest.raises(errors.InputError) as caught:
        client_of(embedding_server).embed_documents([None, 3])  # type: ignore[list-item]

    assert list(caught.value.errors) == [0, 1]
    assert embedding_server.requests == []


# --- a server that changes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "new",
    [
        FakeVLLM("embedding", version="0.12.0"),
        FakeVLLM("embedding", context=100),
        FakeVLLM("embedding", matryoshka=False),
    ],
    ids=["no binary answers", "shorter context", "no dimensions"],
)
def test_after_a_restart_with_another_set_up_the_next_call_is_right(new: FakeVLLM, embed: Embed) -> None:
    texts = ["a", "x" * 200]
    with serve(FakeVLLM("embedding", matryoshka=True)) as server:
        client = client_of(server, dimensions=4)
        embed(client, texts)
        server.restart(new)

        vectors = embed(client, texts)

    if new.context == 100:
        texts[1] = "x" * 99
    np.testing.assert_allclose(vectors, right(texts, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (FakeVLLM("embedding", model="new"), "serves 'new', not 'Qwen3'"),
        (FakeVLLM("embedding", dimensions=8), "8 each"),
        (FakeVLLM("reranker"), "Not Found"),
    ],
    ids=["other name", "other width", "no embeddings"],
)
def test_a_server_restarted_in_mid_run_with_a_new_model_is_an_error_with_what_was_done(
    new: FakeVLLM, words: str, embed: Embed
) -> None:
    texts = [f"text {number}" for number in range(100)]
    old = FakeVLLM("embedding")

    def choose(request: Request) -> Fault:
        if b"text 50" in request.body:
            server.answer = new
            return instead(500)
        return honest

    with serve(old) as server:
        client = client_of(server, batch_size=4, max_concurrency=2)
        client.embed_documents(["warm"])
        server.fault = choose

        with pytest.raises(errors.Qwen3VLLMError) as caught:
            embed(client, texts)

        partial, failed = caught.value.partial, set(caught.value.errors)
        assert partial is not None
        done = [number for number in range(100) if number not in failed]
        assert len(done) >= 40 and 50 in failed
        np.testing.assert_allclose(partial[done], right([texts[n] for n in done]), atol=1e-6)
        server.fault = always(honest)
        if words != "8 each":
            with pytest.raises(errors.Qwen3VLLMError, match=f"{words}|no embeddings"):
                embed(client, texts)
