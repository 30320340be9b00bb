"""Finding out what a server can do, against answers that are given."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import ask_most_texts, try_forms
from qwen3_vllm._core.discovery.context_length import ask_context, ask_limit
from qwen3_vllm._core.http.flow import Flow, Round
from qwen3_vllm._core.vllm_api.calls import Call

T = TypeVar("T")
Answer = Callable[[str], object]

NOT_FOR_YOU = errors.BadRequestError("not for you", status=400)


def call_of(path: str) -> Call[Any]:
    return Call(path, {}, lambda answer: answer)


def drive(flow: Flow[T], answer: Answer) -> T:
    """Run a flow against what `answer` gives for the path of each call."""
    try:
        while True:
            step = next(flow)
            assert isinstance(step, Round)
            for index, call in enumerate(step.calls):
                step.deliver(index, answer(call.path))
    except StopIteration as stop:
        return stop.value


def test_a_server_that_recovers_is_tried_with_the_leanest_form_again() -> None:
    """It failed both forms while it was starting."""
    answers = iter([errors.ServerError("500", status=500), errors.ServerError("500", status=500), "b", "a"])
    asked: list[str] = []

    def answer(path: str) -> object:
        asked.append(path)
        return next(answers)

    forms = {"lean": call_of("/lean"), "plain": call_of("/plain")}

    assert drive(try_forms(forms), answer) == ("lean", "a")
    assert asked == ["/lean", "/plain", "/plain", "/lean"]


@pytest.mark.parametrize("works_up_to", [1, 3, 10, 32])
def test_the_most_texts_of_a_request_are_found(works_up_to: int) -> None:
    def answer(path: str) -> object:
        return "fine" if int(path) <= works_up_to else NOT_FOR_YOU

    assert drive(ask_most_texts(32, lambda count: call_of(str(count))), answer) == works_up_to


def test_an_error_that_says_nothing_of_their_number_leaves_it() -> None:
    busy = errors.OverloadedError("busy", status=503)

    assert drive(ask_most_texts(32, lambda count: call_of(str(count))), lambda path: busy) == 32


def test_a_server_that_refuses_every_length_has_none_that_is_known() -> None:
    assert drive(ask_context(4096, lambda tokens: call_of(str(tokens))), lambda path: NOT_FOR_YOU) is None


def test_no_answer_to_a_too_long_input_is_an_error_not_a_release() -> None:
    gone = errors.RequestTimeoutError("no answer")

    with pytest.raises(errors.RequestTimeoutError):
        drive(ask_limit(1024, call_of("/overlong")), lambda path: gone)
