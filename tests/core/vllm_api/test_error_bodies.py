"""What is made of every shape of error."""

import time
from email.utils import formatdate
from typing import Any

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.vllm_api.calls import Answer
from qwen3_vllm._core.vllm_api.error_bodies import is_too_long, raise_for_error
from tests.core.vllm_api.answers import answer, raw_vectors, scored


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
    with pytest.raises(errors.ServerError, match="http://server/v1/score responded with") as caught:
        raise_for_error(raw)

    assert type(caught.value) is kind
    assert caught.value.status == status
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "fine", [scored(0.5), answer({"error": None, "data": []}), raw_vectors([[1.0]]), answer(b'{"error"')]
)
def test_an_answer_is_no_error(fine: Answer) -> None:
    raise_for_error(fine)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("nan", 0.0), ("", None), ("soon", None)],
)
def test_retry_after_is_read_in_seconds(header: str, seconds: float | None) -> None:
    with pytest.raises(errors.OverloadedError) as caught:
        raise_for_error(answer({}, 503, retry_after=header))

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("Wed, 21 Oct 2026 07:28:30 GMT", 30.0), ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0), ("Wed, 99 Oct", None)],
)
def test_retry_after_may_be_a_date_by_the_servers_clock(header: str, seconds: float | None) -> None:
    with pytest.raises(errors.OverloadedError) as caught:
        raise_for_error(answer({}, 503, retry_after=header, date="Wed, 21 Oct 2026 07:28:00 GMT"))

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("words", "header", "seconds"),
    [
        ("No deployments available for selected model, Try again in 5 seconds. Passed model=a", None, 5.0),
        ("Rate limit reached on tokens per min. Please try again in 1.5s.", None, 1.5),
        ("Try again in 5 seconds", "2", 2.0),
        ("Try again later", None, None),
    ],
)
def test_a_gateway_may_say_in_words_when_to_try_again(
    words: str, header: str | None, seconds: float | None
) -> None:
    headers = {} if header is None else {"retry_after": header}
    with pytest.raises(errors.OverloadedError) as caught:
        raise_for_error(answer({"error": {"message": words}}, 429, **headers))

    assert caught.value.retry_after == seconds


def test_a_date_in_retry_after_counts_from_now_where_the_server_has_no_clock() -> None:
    with pytest.raises(errors.OverloadedError) as caught:
        raise_for_error(answer({}, 503, retry_after=formatdate(time.time() + 3600, usegmt=True)))

    assert caught.value.retry_after == pytest.approx(3600, abs=60)


def test_a_servers_essay_is_shortened() -> None:
    with pytest.raises(errors.BadRequestError) as caught:
        raise_for_error(answer(vllm_error("x" * 10_000, "Bad Request", 400), 400))

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
        raise_for_error(answer(vllm_error(words, "BadRequestError", 400), 400))

    assert is_too_long(caught.value)
