"""Which pairs and prompts are sent, and what is made of every shape of scores."""

from typing import Any

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.vllm_api.calls import Answer
from qwen3_vllm._core.vllm_api.scores import classify, score
from tests.core.vllm_api.answers import answer, scored


def test_pairs_travel_under_the_names_that_every_release_takes() -> None:
    call = score("m", "q", ["a", "b"])

    assert call.path == "/v1/score"
    assert call.body == {"model": "m", "text_1": "q", "text_2": ["a", "b"]}


def test_an_instruction_travels_only_if_there_is_one() -> None:
    body = score("m", "q", ["a"], instruction="i").body

    assert body is not None and body["instruction"] == "i"


def test_finished_prompts_go_to_classify() -> None:
    call = classify("m", ["p", [1, 2]])

    assert (call.path, call.body) == ("/classify", {"model": "m", "input": ["p", [1, 2]]})


def test_scores_come_in_the_order_of_their_indexes() -> None:
    shuffled = answer({"data": [{"index": 1, "score": 0.25}, {"index": 0, "score": 0.75}]})

    assert score("m", "q", ["a", "b"]).decode(shuffled).values.tolist() == [0.75, 0.25]


def test_classify_scores_come_in_the_order_of_their_indexes() -> None:
    shuffled = answer({"data": [{"index": 1, "probs": [0.25]}, {"index": 0, "probs": [0.75]}]})

    assert classify("m", ["a", "b"]).decode(shuffled).values.tolist() == [0.75, 0.25]


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
    assert score("m", "q", ["a"]).decode(scored(0.5, usage=usage)).prompt_tokens == tokens


def test_rounding_beyond_one_is_clipped() -> None:
    assert score("m", "q", ["a", "b"]).decode(scored(1.000001, -0.000001)).values.tolist() == [1, 0]


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
    with pytest.raises(errors.InvalidAnswerError, match="http://server/v1/score sent"):
        score("m", "q", ["a", "b"]).decode(bad)


def test_more_classes_than_one_are_no_score() -> None:
    with pytest.raises(errors.InvalidAnswerError):
        classify("m", ["a"]).decode(answer({"data": [{"index": 0, "probs": [0.5, 0.5]}]}))
