"""What goes over the wire, and what is made of every shape of answer."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.vllm_api import wire
from qwen3_vllm._core.vllm_api.wire import Answer

URL = "http://server/v1/score"


def answer(content: object, status: int = 200, **headers: str) -> Answer:
    raw = content if isinstance(content, bytes) else orjson.dumps(content)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(URL, status, {"content-type": "application/json", **headers}, raw)


def scored(*scores: Any, **more: Any) -> Answer:
    return answer({"data": [{"index": i, "score": s} for i, s in enumerate(scores)], **more})


def raw_vectors(vectors: Any, dtype: str = "<f4") -> Answer:
    return answer(np.asarray(vectors, dtype).tobytes(), content_type="application/octet-stream")


def base64_vectors(*vectors: list[float]) -> Answer:
    rows = [base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode() for vector in vectors]
    return answer({"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]})


# --- bodies --------------------------------------------------------------------------------------------


def test_pairs_travel_under_the_names_that_every_release_takes() -> None:
    call = wire.score("m", "q", ["a", "b"])

    assert call.path == "/v1/score"
    assert call.body == {"model": "m", "text_1": "q", "text_2": ["a", "b"]}


def test_an_instruction_travels_only_if_there_is_one() -> None:
    body = wire.score("m", "q", ["a"], instruction="i").body

    assert body is not None and body["instruction"] == "i"


def test_finished_prompts_go_to_classify() -> None:
    call = wire.classify("m", ["p", [1, 2]])

    assert (call.path, call.body) == ("/classify", {"model": "m", "input": ["p", [1, 2]]})


def test_binary_vectors_are_asked_for_in_little_endian() -> None:
    body = wire.embeddings("m", ["a"], encoding="bytes_only", dtype="float16").body

    assert body == {
        "model": "m",
        "input": ["a"],
        "encoding_format": "bytes_only",
        "endianness": "little",
        "embed_dtype": "float16",
    }


def test_half_precision_is_asked_for_in_base64_too() -> None:
    body = wire.embeddings("m", ["a"], encoding="base64", dtype="float16").body

    assert body is not None
    assert (body["encoding_format"], body["endianness"], body["embed_dtype"]) == (
        "base64",
        "little",
        "float16",
    )


def test_base64_vectors_are_asked_for_without_fields_that_old_servers_lack() -> None:
    body = wire.embeddings("m", ["a"], encoding="base64").body

    assert body == {"model": "m", "input": ["a"], "encoding_format": "base64"}


# --- scores --------------------------------------------------------------------------------------------


def test_scores_come_in_the_order_of_their_indexes() -> None:
    shuffled = answer({"data": [{"index": 1, "score": 0.25}, {"index": 0, "score": 0.75}]})

    assert wire.score("m", "q", ["a", "b"]).decode(shuffled).values.tolist() == [0.75, 0.25]


def test_classify_scores_come_in_the_order_of_their_indexes() -> None:
    shuffled = answer({"data": [{"index": 1, "probs": [0.25]}, {"index": 0, "probs": [0.75]}]})

    assert wire.classify("m", ["a", "b"]).decode(shuffled).values.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 74, "total_tokens": 75}, 74),
        ({"total_tokens": 75}, 75),  # /rerank before 0.13
        ({}, None),
        (None, None),
        ([], None),
        ("many", None),
        ({"prompt_tokens": "74"}, None),
    ],
)
def test_tokens_are_read_where_the_server_counts_them(usage: Any, tokens: int | None) -> None:
    assert wire.score("m", "q", ["a"]).decode(scored(0.5, usage=usage)).prompt_tokens == tokens


def test_rounding_beyond_one_is_clipped() -> None:
    assert wire.score("m", "q", ["a", "b"]).decode(scored(1.000001, -0.000001)).values.tolist() == [1, 0]


BAD_SCORES = {
    "too few": scored(0.5),
    "too many": scored(0.5, 0.5, 0.5),
    "index twice": answer({"data": [{"index": 0, "score": 0.5}, {"index": 0, "score": 0.5}]}),
    "index beyond": answer({"data": [{"index": 1, "score": 0.5}, {"index": 2, "score": 0.5}]}),
    "index negative": answer({"data": [{"index": -1, "score": 0.5}, {"index": 0, "score": 0.5}]}),
    "index no number": answer({"data": [{"index": "0", "score": 0.5}, {"index": 1, "score": 0.5}]}),
    "above one": scored(0.5, 1.5),
    "below zero": scored(0.5, -0.5),
    "null": scored(0.5, None),
    "text": scored(0.5, "high"),
    "a list": scored([0.5], [0.5]),
    "NaN": answer(b'{"data":[{"index":0,"score":NaN},{"index":1,"score":0.5}]}'),
    "no score": answer({"data": [{"index": 0}, {"index": 1}]}),
    "the article's shape": answer({"scores": [0.5, 0.5]}),
    "data is no list": answer({"data": {"score": 0.5}}),
    "items are no objects": answer({"data": [0.5, 0.5]}),
    "a list at the top": answer([0.5, 0.5]),
    "a number at the top": answer(1),
    "null at the top": answer(None),
    "cut JSON": answer(b'{"data": [{"index": 0, "sco'),
    "nothing": answer(b""),
    "an HTML page": answer(b"<!DOCTYPE html><html><body>Please log in</body></html>"),
    "not UTF-8": answer(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("bad", BAD_SCORES.values(), ids=BAD_SCORES)
def test_a_bad_answer_to_score_is_told_not_used(bad: Answer) -> None:
    with pytest.raises(errors.InvalidAnswerError, match="http://server/v1/score answered"):
        wire.score("m", "q", ["a", "b"]).decode(bad)


def test_more_classes_than_one_are_no_score() -> None:
    with pytest.raises(errors.InvalidAnswerError):
        wire.classify("m", ["a"]).decode(answer({"data": [{"index": 0, "probs": [0.5, 0.5]}]}))


def test_an_html_page_is_named_and_shortened() -> None:
    page = answer(b"<html><h1>Gateway</h1>" + b"x" * 5000 + b"</html>")

    with pytest.raises(errors.InvalidAnswerError) as caught:
        wire.score("m", "q", ["a"]).decode(page)

    assert "an HTML page: Gateway" in str(caught.value)
    assert len(str(caught.value)) < 600


# --- vectors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        raw_vectors([[3, 4], [0, 2]]),
        base64_vectors([3, 4], [0, 2]),
        answer({"data": [{"index": 0, "embedding": [3, 4]}, {"index": 1, "embedding": [0, 2]}]}),
        answer({"data": [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 4]}]}),
    ],
    ids=["bytes", "base64", "floats", "shuffled"],
)
def test_vectors_come_in_order_with_length_one(good: Answer) -> None:
    vectors = wire.embeddings("m", ["a", "b"], encoding="bytes_only").decode(good)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)


def test_half_precision_vectors_come_back_as_float32() -> None:
    call = wire.embeddings("m", ["a"], encoding="bytes_only", dtype="float16")

    vectors = call.decode(raw_vectors([[3, 4]], "<f2"))

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8]], atol=1e-3)


def test_vectors_cut_here_have_length_one_again() -> None:
    vectors = wire.embeddings("m", ["a"], encoding="bytes_only", keep=2).decode(raw_vectors([[3, 4, 12]]))

    np.testing.assert_allclose(vectors, [[0.6, 0.8]], atol=1e-6)


ROW = base64.b64encode(np.asarray([3, 4], "<f4").tobytes()).decode()
OTHER = base64.b64encode(np.asarray([0, 2], "<f4").tobytes()).decode()
ODD_BODIES = {
    "spaces": f'{{"data": [{{"index": 0, "embedding": "{ROW}"}}, {{"index": 1, "embedding": "{OTHER}"}}]}}',
    "shuffled": f'{{"data":[{{"embedding":"{OTHER}","index":1}},{{"embedding":"{ROW}","index":0}}]}}',
    "escapes": f'{{"data":[{{"embedding":"{ROW}"}},{{"embedding":"{OTHER}"}}]}}'.replace("A", "\\u0041"),
    "the key in a name": f"""{{"model":"\\"embedding\\":\\"","data":[{{"embedding":"{ROW}"}},
        {{"embedding":"{OTHER}"}}]}}""",
    "another one before": f"""{{"usage":{{"embedding":"x"}},"data":[{{"embedding":"{ROW}"}},
        {{"embedding":"{OTHER}"}}]}}""",
    "another one behind": f"""{{"data":[{{"embedding":"{ROW}"}},
        {{"embedding":"{OTHER}"}}],"usage":{{"embedding":"x"}}}}""",
    "a key twice": f"""{{"data":[{{"embedding":"x","embedding":"{ROW}"}},
        {{"embedding":"y","embedding":"{OTHER}"}}]}}""",
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
@pytest.mark.parametrize("lent", [False, True])
def test_vectors_in_base64_are_read_from_any_json(body: str, lent: bool) -> None:
    clean = body.encode()
    content: bytes | memoryview = clean
    if lent:  # behind the answer lies an older one
        content = memoryview(bytearray(clean + ODD_BODIES["shuffled"].encode()))[: len(clean)]
    odd = Answer(URL, 200, {"content-type": "application/json"}, content)

    vectors = wire.embeddings("m", ["a", "b"], encoding="base64").decode(odd)

    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize("length", range(0, len(ODD_BODIES["shuffled"]), 5))
def test_an_answer_cut_short_is_never_completed_by_an_older_one(length: int) -> None:
    whole = bytearray(ODD_BODIES["shuffled"].encode())
    cut = Answer(URL, 200, {"content-type": "application/json"}, memoryview(whole)[:length])

    with pytest.raises(errors.InvalidAnswerError):
        wire.embeddings("m", ["a", "b"], encoding="base64").decode(cut)


BAD_VECTORS = {
    "a third": base64_vectors([1, 2], [1, 2], [1, 2]),
    "text for a vector": answer(
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": [1]}]}
    ),
    "one vector for two": raw_vectors([[1, 2, 3]]),
    "half a number": answer(b"123456789", content_type="application/octet-stream"),
    "no bytes": answer(b"", content_type="application/octet-stream"),
    "NaN": raw_vectors([[1, 2], [np.nan, 1]]),
    "infinity": raw_vectors([[1, 2], [np.inf, 1]]),
    "zeros": raw_vectors([[1, 2], [0, 0]]),
    "NaN in base64": base64_vectors([1, 2], [np.nan, 1]),
    "another width": raw_vectors([[1, 2, 3], [1, 2, 3]]),
    "different widths": base64_vectors([1, 2], [1, 2, 3]),
    "too few": base64_vectors([1, 2]),
    "no base64": answer({"data": [{"index": i, "embedding": "§"} for i in (0, 1)]}),
    "null": answer({"data": [{"index": i, "embedding": None} for i in (0, 1)]}),
    "null in a vector": answer({"data": [{"index": i, "embedding": [None, 1]} for i in (0, 1)]}),
    "empty": answer({"data": [{"index": i, "embedding": []} for i in (0, 1)]}),
    "nested": answer({"data": [{"index": i, "embedding": [[1, 2]]} for i in (0, 1)]}),
    "no embedding": answer({"data": [{"index": 0}, {"index": 1}]}),
    "cut JSON": answer(b'{"data": [{"index": 0, "embed'),
    "an HTML page": answer(b"<html></html>", content_type="text/html"),
}


@pytest.mark.parametrize("bad", BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_a_bad_answer_to_embeddings_is_told_not_used(bad: Answer) -> None:
    with pytest.raises(errors.InvalidAnswerError, match="answered"):
        wire.embeddings("m", ["a", "b"], encoding="bytes_only", width=2).decode(bad)


# --- small answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "context"),
    [
        ({"id": "m", "max_model_len": 512}, 512),
        ({"id": "m"}, None),
        ({"id": "m", "max_model_len": None}, None),
        ({"id": "m", "max_model_len": "512"}, None),
    ],
)
def test_models_are_listed_with_their_context(line: dict[str, Any], context: int | None) -> None:
    assert wire.models().decode(answer({"data": [line]})) == [wire.ServedModel("m", context)]


@pytest.mark.parametrize(
    ("call", "bad"),
    [
        (wire.models, {"data": "m"}),
        (wire.models, {"data": [1]}),
        (wire.models, {"data": None}),
        (wire.models, []),
        (wire.version, []),
        (wire.version, {}),
        (wire.version, None),
        (lambda: wire.tokenize("m", "a"), {"tokens": [None]}),
        (lambda: wire.tokenize("m", "a"), {"tokens": 3}),
        (lambda: wire.tokenize("m", "a"), []),
        (lambda: wire.detokenize("m", [1]), {}),
        (lambda: wire.detokenize("m", [1]), [1]),
    ],
)
def test_other_shapes_than_expected_are_told(call: Callable[[], wire.Call[Any]], bad: object) -> None:
    with pytest.raises(errors.InvalidAnswerError):
        call().decode(answer(bad))


# --- errors --------------------------------------------------------------------------------------------


def vllm_error(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


FLAT = {"object": "error", "message": "too many", "type": "BadRequestError", "param": None, "code": 400}
ERRORS: dict[str, tuple[Answer, type[errors.ServerError], int, str]] = {
    "0.10.1 and later": (
        answer(vllm_error("too many", "BadRequestError", 400), 400),
        errors.BadRequestError,
        400,
        "too many",
    ),
    "flat, 0.10.0": (answer(FLAT, 400), errors.BadRequestError, 400, "too many"),
    "status 200, 0.15.1": (
        answer(vllm_error("too many", "BadRequestError", 400)),
        errors.BadRequestError,
        400,
        "too many",
    ),
    "status 200 with spaces": (
        answer(b' {\n "error": {"message": "too many", "code": 400}}'),
        errors.BadRequestError,
        400,
        "too many",
    ),
    "status 200, dead engine": (
        answer(vllm_error("engine died", "InternalServerError", 500)),
        errors.ServerError,
        500,
        "engine died",
    ),
    "status 200, no code": (answer({"error": {"message": "odd"}}), errors.ServerError, 500, "odd"),
    "validation": (answer({"detail": [{"msg": "bad"}]}, 422), errors.BadRequestError, 422, "bad"),
    "too large": (answer(b"", 413), errors.BadRequestError, 413, "nothing"),
    "no key": (answer({"error": "Unauthorized"}, 401), errors.AuthenticationError, 401, "VLLM_API_KEY"),
    "forbidden": (answer(b"<html>no</html>", 403), errors.AuthenticationError, 403, "HTML page"),
    "unknown model": (
        answer(vllm_error("The model `x` does not exist.", "NotFoundError", 404), 404),
        errors.ModelNotFoundError,
        404,
        "`x`",
    ),
    "no route, 0.16": (answer({"detail": "Not Found"}, 404), errors.RouteNotFoundError, 404, "Not Found"),
    "no route, 0.15": (
        answer(vllm_error("The model does not support Score API", "BadRequestError", 400), 400),
        errors.RouteNotFoundError,
        400,
        "Score API",
    ),
    "no handler, 0.18": (
        answer(vllm_error("not here", "NotImplementedError", 501), 501),
        errors.RouteNotFoundError,
        501,
        "not here",
    ),
    "method": (answer({"detail": "Method Not Allowed"}, 405), errors.RouteNotFoundError, 405, "Method"),
    "busy": (
        answer(vllm_error("busy", "Service Unavailable", 503), 503),
        errors.OverloadedError,
        503,
        "busy",
    ),
    "rate limit": (answer({"message": "slow down"}, 429), errors.OverloadedError, 429, "slow down"),
    "empty": (answer(b"", 500), errors.ServerError, 500, "nothing"),
    "a proxy's page": (answer(b"<html><h1>Bad Gateway</h1>", 502), errors.ServerError, 502, "Bad Gateway"),
    "a list": (answer([1], 500), errors.ServerError, 500, "[1]"),
    "error is null": (answer({"error": None}, 500), errors.ServerError, 500, "null"),
}


@pytest.mark.parametrize(("raw", "kind", "status", "words"), ERRORS.values(), ids=ERRORS)
def test_every_shape_of_error_is_understood(
    raw: Answer, kind: type[errors.ServerError], status: int, words: str
) -> None:
    with pytest.raises(errors.ServerError, match="http://server/v1/score answered") as caught:
        wire.raise_for_error(raw)

    assert type(caught.value) is kind
    assert caught.value.status == status
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "fine", [scored(0.5), answer({"error": None, "data": []}), raw_vectors([[1.0]]), answer(b'{"error"')]
)
def test_an_answer_is_no_error(fine: Answer) -> None:
    wire.raise_for_error(fine)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("nan", 0.0)],
)
def test_retry_after_is_read_in_seconds(header: str, seconds: float | None) -> None:
    with pytest.raises(errors.OverloadedError) as caught:
        wire.raise_for_error(answer({}, 503, retry_after=header))

    assert caught.value.retry_after == seconds


def test_a_servers_essay_is_shortened() -> None:
    with pytest.raises(errors.BadRequestError) as caught:
        wire.raise_for_error(answer(vllm_error("x" * 10_000, "Bad Request", 400), 400))

    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 512 tokens. However, you requested 600 tokens in the input",
        "This model's maximum context length is 512 tokens. However, you requested 0 output tokens and your",
        "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input",
    ],
)
def test_too_long_is_known_in_every_releases_words(words: str) -> None:
    with pytest.raises(errors.BadRequestError) as caught:
        wire.raise_for_error(answer(vllm_error(words, "BadRequestError", 400), 400))

    assert wire.is_too_long(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        'Model "x" does not support matryoshka representation, changing output dimensions will lead to poor',
        "Model 'x' does not support Matryoshka embeddings; dimensions must be unset (received dimensions=4).",
    ],
)
def test_refused_dimensions_are_known_in_every_releases_words(words: str) -> None:
    with pytest.raises(errors.BadRequestError) as caught:
        wire.raise_for_error(answer(vllm_error(words, "BadRequestError", 400), 400))

    assert wire.refuses_dimensions(caught.value)
