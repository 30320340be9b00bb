"""ConcurrencyLimit: narrowed by what a server cannot do, widened by what it can, never exceeded."""

import asyncio
from contextlib import AsyncExitStack

from qwen3_vllm._core.http.slots import ConcurrencyLimit, Slot


async def taken(limit: ConcurrencyLimit, stack: AsyncExitStack, count: int) -> list[Slot]:
    return [await stack.enter_async_context(limit.slot()) for _ in range(count)]


async def free_slots(limit: ConcurrencyLimit) -> int:
    """How many more could be in flight now."""
    async with AsyncExitStack() as stack:
        for count in range(100):
            try:
                await asyncio.wait_for(stack.enter_async_context(limit.slot()), timeout=0.02)
            except TimeoutError:
                return count
    raise AssertionError("there is no limit")


async def test_those_refused_together_halve_the_limit_once() -> None:
    limit = ConcurrencyLimit(16, soon=1)
    async with AsyncExitStack() as stack:
        slots = await taken(limit, stack, 16)
        for slot in slots:
            await limit.overloaded(slot)

    assert limit.allowed == 8
    assert await free_slots(limit) == 8


async def test_a_slow_server_gets_half_of_what_it_answered_within_a_time_limit() -> None:
    limit = ConcurrencyLimit(16, soon=1)
    async with AsyncExitStack() as stack:
        slots = await taken(limit, stack, 16)
        for slot in slots[:6]:
            limit.answered(slot)
        for slot in slots[6:]:
            await limit.timed_out(slot, for_good=False)

    assert await free_slots(limit) == limit.allowed == 3


async def test_a_server_that_hangs_is_asked_again_at_once_and_then_one_by_one() -> None:
    limit = ConcurrencyLimit(4, soon=1)
    async with limit.slot() as slot:
        await limit.timed_out(slot, for_good=False)
        assert limit.allowed == 4
        await limit.timed_out(slot, for_good=True)

    assert await free_slots(limit) == limit.allowed == 1


async def test_free_slots_vanish_at_once() -> None:
    limit = ConcurrencyLimit(16, soon=1)
    async with limit.slot() as slot:
        await limit.overloaded(slot)

        assert await free_slots(limit) == 7


async def test_a_round_of_answers_that_come_soon_gives_one_slot_more() -> None:
    limit = ConcurrencyLimit(4, soon=10)
    async with limit.slot() as slot:
        await limit.overloaded(slot)
    for expected in (2, 3, 3, 3, 4, 4, 4, 4, 4):
        async with limit.slot() as slot:
            limit.answered(slot)
        assert limit.allowed == expected

    assert await free_slots(limit) == 4


async def test_one_request_too_many_is_tried_less_and_less_often() -> None:
    limit = ConcurrencyLimit(32, soon=10)
    refused = 0
    for _ in range(100):  # a server that takes one request at a time
        async with limit.slot() as slot:
            if limit.allowed > 1:
                refused += 1
                await limit.overloaded(slot)
            else:
                limit.answered(slot)

    assert refused < 12


async def test_a_server_that_takes_more_again_gets_more_again() -> None:
    limit = ConcurrencyLimit(8, soon=10)
    for _ in range(100):
        async with limit.slot() as slot:
            if limit.allowed > 1:
                await limit.overloaded(slot)
            else:
                limit.answered(slot)
    for _ in range(100):
        async with limit.slot() as slot:
            limit.answered(slot)

    assert limit.allowed == 8


async def test_late_answers_give_none() -> None:
    limit = ConcurrencyLimit(4, soon=0)
    async with limit.slot() as slot:
        await limit.overloaded(slot)
    for _ in range(10):
        async with limit.slot() as slot:
            await asyncio.sleep(0.001)
            limit.answered(slot)

    assert await free_slots(limit) == 2
