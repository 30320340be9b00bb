"""Memory for answers: used again, never by two at a time, and never kept in bulk."""

from contextlib import ExitStack

import pytest

from qwen3_vllm._core.http.connections.buffers import Buffer, Buffers


def test_gives_as_much_as_is_asked() -> None:
    buffer = Buffer()
    assert [len(buffer.of(size)) for size in (3, 0, 5, 2)] == [3, 0, 5, 2]


def test_grows_while_what_it_gave_before_is_still_held() -> None:
    buffer = Buffer()
    before = buffer.of(2)
    before[:] = b"ab"
    buffer.of(1000)[:] = bytes(1000)
    assert bytes(before) == b"ab"


def test_is_used_again_even_after_a_failure() -> None:
    buffers = Buffers()
    with pytest.raises(ValueError), buffers.taken() as first:
        raise ValueError
    with buffers.taken() as second:
        assert second is first


def test_is_never_lent_twice_at_a_time() -> None:
    buffers = Buffers()
    before = lend(buffers, 5)
    assert set(map(id, lend(buffers, 5))) == set(map(id, before))
    assert len(set(map(id, before))) == 5


def lend(buffers: Buffers, count: int) -> list[Buffer]:
    with ExitStack() as stack:
        return [stack.enter_context(buffers.taken()) for _ in range(count)]


def test_keeps_no_more_than_are_used_at_once() -> None:
    buffers = Buffers()
    before, after = lend(buffers, 100), lend(buffers, 100)
    assert len({*map(id, before), *map(id, after)}) == 200 - 32


def test_keeps_none_that_is_large() -> None:
    buffers = Buffers()
    with buffers.taken() as large:
        large.of(2**21)
    with buffers.taken() as other:
        assert other is not large
