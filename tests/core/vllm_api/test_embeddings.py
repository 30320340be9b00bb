"""Which texts are sent, and what is made of every shape of vectors."""

import base64

import numpy as np
import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.vllm_api.calls import Answer
from qwen3_vllm._core.vllm_api.embeddings import embed
from tests.core.vllm_api.answers import URL, answer, base64_vectors, raw_vectors


def test_binary_vectors_are_asked_for_in_little_endian() -> None:
    body = embed("m", ["a"], encoding="bytes_only", dtype="float16").body

    assert body == {
        "model": "m",
        "input": ["a"],
        "encoding_format": "bytes_only",
        "endianness": "little",
        "embed_dtype": "float16",
    }


def test_half_precision_is_asked_for_in_base64_too() -> None:
    body = embed("m", ["a"], encoding="base64", dtype="float16").body

    assert body is not None
    assert (body["encoding_format"], body["endianness"], body["embed_dtype"]) == (
        "base64",
        "little",
        "float16",
    )


def test_base64_vectors_are_asked_for_without_fields_that_old_servers_lack() -> None:
    body = embed("m", ["a"], encoding="base64").body

    assert body == {"model": "m", "input": ["a"], "encoding_format": "base64"}


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
    vectors = embed("m", ["a", "b"], encoding="bytes_only").decode(good)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)


def test_half_precision_vectors_come_back_as_float32() -> None:
    call = embed("m", ["a"], encoding="bytes_only", dtype="float16")

    vectors = call.decode(raw_vectors([[3, 4]], "<f2"))

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8]], atol=1e-3)


def test_vectors_cut_here_have_length_one_again() -> None:
    vectors = embed("m", ["a"], encoding="bytes_only", keep=2).decode(raw_vectors([[3, 4, 12]]))

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

    vectors = embed("m", ["a", "b"], encoding="base64").decode(odd)

    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize("length", range(0, len(ODD_BODIES["shuffled"]), 5))
def test_an_answer_cut_short_is_never_completed_by_an_older_one(length: int) -> None:
    whole = bytearray(ODD_BODIES["shuffled"].encode())
    cut = Answer(URL, 200, {"content-type": "application/json"}, memoryview(whole)[:length])

    with pytest.raises(errors.InvalidAnswerError):
        embed("m", ["a", "b"], encoding="base64").decode(cut)


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
    with pytest.raises(errors.InvalidAnswerError, match="http://server/v1/score sent"):
        embed("m", ["a", "b"], encoding="bytes_only", width=2).decode(bad)
