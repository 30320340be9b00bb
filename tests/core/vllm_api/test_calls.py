"""What is made of the small answers, and of those that are not the API's."""

from collections.abc import Callable
from typing import Any

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.vllm_api.calls import Call, ServedModel, detokenize, models, tokenize, version
from qwen3_vllm._core.vllm_api.scores import score
from tests.core.vllm_api.answers import answer


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
    assert models().decode(answer({"data": [line]})) == [ServedModel("m", context)]


@pytest.mark.parametrize(
    ("call", "bad"),
    [
        (models, {"data": "m"}),
        (models, {"data": [1]}),
        (models, {"data": None}),
        (models, []),
        (version, []),
        (version, {}),
        (version, None),
        (lambda: tokenize("m", "a"), {"tokens": [None]}),
        (lambda: tokenize("m", "a"), {"tokens": 3}),
        (lambda: tokenize("m", "a"), []),
        (lambda: detokenize("m", [1]), {}),
        (lambda: detokenize("m", [1]), [1]),
    ],
)
def test_other_shapes_than_expected_are_told(call: Callable[[], Call[Any]], bad: object) -> None:
    with pytest.raises(errors.InvalidAnswerError):
        call().decode(answer(bad))


def test_an_html_page_is_named_and_shortened() -> None:
    page = answer(b"<html><h1>Gateway</h1>" + b"x" * 5000 + b"</html>")

    with pytest.raises(errors.InvalidAnswerError) as caught:
        score("m", "q", ["a"]).decode(page)

    assert "an HTML page: Gateway" in str(caught.value)
    assert len(str(caught.value)) < 600
