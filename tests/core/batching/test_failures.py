"""The one error of a call over many texts."""

import numpy as np

from qwen3_vllm import errors
from qwen3_vllm._core.batching.failures import failed


def test_bad_texts_make_one_error_that_names_them() -> None:
    failures = {4: errors.InputError("is not a string but int"), 1: errors.TooLongError("has 9 tokens")}

    error = failed(failures, 6, "query", np.zeros(6))

    assert type(error) is errors.InputError
    assert str(error) == (
        "2 of 6 queries cannot be used: query 1 has 9 tokens; query 4 is not a string but int"
    )
    assert list(error.errors) == [1, 4]
    assert str(error.errors[4]) == "query 4 is not a string but int"


def test_texts_that_are_all_too_long_make_a_too_long_error() -> None:
    refused = errors.BadRequestError("This model's maximum context length is 9 tokens.", status=400)

    error = failed({0: errors.TooLongError("has 9"), 1: refused}, 3, "document", None)

    assert type(error) is errors.TooLongError
    assert type(error.errors[1]) is errors.TooLongError


def test_many_bad_texts_make_a_short_message() -> None:
    error = failed(
        {n: errors.InputError("is not a string but int") for n in range(1000)}, 1000, "document", None
    )

    assert len(str(error)) < 400
    assert "and 995 more" in str(error)
    assert len(error.errors) == 1000


def test_a_failure_of_the_server_comes_before_those_of_texts() -> None:
    failures = {0: errors.InputError("is not a string but int"), 1: errors.ServerError("x", status=500)}

    error = failed(failures, 3, "document", np.zeros(3))

    assert error is failures[1]
    assert error.partial is not None
    assert error.__notes__ == ["2 of 3 documents failed; error.partial has the others."]
