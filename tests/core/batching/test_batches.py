"""Planning batches, and finding the text that spoils one, without any server."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_vllm import errors
from qwen3_vllm._core.batching import batches as batching
from qwen3_vllm._core.http.flow import Round
from qwen3_vllm._core.vllm_api.calls import Call

Refusal = Callable[[list[int]], errors.Qwen3VLLMError | None]


class Kept(list[tuple[list[int], object]]):
    """Results in the order in which they came."""

    def take(self, batch: list[int], result: object) -> None:
        self.append((batch, result))


def drive(
    batches: list[list[int]], refuse: Refusal
) -> tuple[dict[int, errors.Qwen3VLLMError], list[list[int]]]:
    """Run `send_batches` against a server that answers everything but what `refuse` names.

    Returns:
        The failures, and every batch as it was sent.
    """
    sent: list[list[int]] = []

    def call(batch: list[int]) -> Call[object]:
        return Call("/", {"batch": batch}, lambda answer: batch)

    flow = batching.send_batches(batches, call, Kept())
    try:
        while True:
            step = next(flow)
            assert isinstance(step, Round)
            for index, one in enumerate(step.calls):
                assert one.body is not None
                batch = one.body["batch"]
                sent.append(batch)
                step.deliver(index, refuse(batch) or batch)
    except StopIteration as stop:
        return stop.value[0], sent


def bad_request() -> errors.Qwen3VLLMError:
    return errors.BadRequestError("no", status=400)


@given(st.integers(1, 64), st.data())
@settings(deadline=None)
def test_a_bad_text_is_found_with_each_text_sent_log2_times(size: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, size - 1))

    failures, sent = drive([list(range(size))], lambda batch: bad_request() if bad in batch else None)

    assert list(failures) == [bad]
    for text in range(size):
        assert sum(text in batch for batch in sent) <= math.ceil(math.log2(size)) + 1


@given(st.sets(st.integers(0, 63)))
@settings(deadline=None)
def test_all_bad_texts_are_found_and_no_other(bad: set[int]) -> None:
    batches = [list(range(32)), list(range(32, 64))]

    failures, sent = drive(batches, lambda batch: bad_request() if bad & set(batch) else None)

    assert set(failures) == bad
    for text in range(64):
        assert sum(text in batch for batch in sent) <= 6


@pytest.mark.parametrize(
    ("error", "halved"),
    [
        (errors.BadRequestError("", status=400), True),
        (errors.BadRequestError("", status=413), True),
        (errors.InvalidAnswerError(""), True),
        (errors.OverloadedError("", status=503), True),
        (errors.OverloadedError("", status=503, retry_after=1.0), False),
        (errors.OverloadedError("", status=429), False),
        (errors.ServerError("", status=500), False),
        (errors.RequestTimeoutError(""), False),
        (errors.ServerUnreachableError(""), False),
        (errors.AuthenticationError("", status=401), False),
    ],
)
def test_a_batch_is_halved_only_where_its_size_or_one_text_may_be_at_fault(
    error: errors.Qwen3VLLMError, halved: bool
) -> None:
    failures, sent = drive([[0, 1, 2, 3]], lambda batch: error)

    assert set(failures) == {0, 1, 2, 3}
    assert (len(sent) > 1) is halved


def test_a_batch_that_a_full_server_has_room_for_is_repeated_once() -> None:
    full = errors.OverloadedError("full", status=503)

    failures, sent = drive([[0], [1]], lambda batch: full if batch == [1] else None)

    assert failures == {1: full}
    assert sent == [[0], [1], [1]]


def test_results_are_collected_as_they_come() -> None:
    kept = Kept()
    flow = batching.send_batches([[0, 1], [2]], lambda batch: Call("/", None, str), kept)
    step = next(flow)
    assert isinstance(step, Round)

    step.deliver(1, "second")
    step.deliver(0, "first")

    assert kept == [([2], "second"), ([0, 1], "first")]


@given(st.lists(st.integers(0, 100_000), max_size=60), st.integers(1, 40))
@settings(deadline=None)
def test_a_plan_keeps_order_and_limits(sizes: list[int], max_count: int) -> None:
    batches = batching.plan(range(len(sizes)), sizes, max_count)

    assert [index for batch in batches for index in batch] == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= max_count
        assert len(batch) == 1 or sum(sizes[i] for i in batch) <= batching.BATCH_BYTES
