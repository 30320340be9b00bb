"""Who gets what next: the one with the least to do, queries before bulk, and no more than is allowed."""

import asyncio
from dataclasses import dataclass

import pytest

from qwen3_vllm._core.http.several.turns import Turns


@dataclass(eq=False)
class Place:
    allowed: int = 9
    usable: bool = True
    pausing: bool = False
    in_flight: int = 0


def made(count: int, most: int = 99, *, keeps_one: bool = True) -> tuple[Turns[Place], list[Place]]:
    places = [Place() for _ in range(count)]
    return Turns(places, most, keeps_one=keeps_one), places


async def test_the_one_with_the_fewest_in_flight_is_next() -> None:
    turns, places = made(2)
    for _ in range(6):
        await turns.take(False, None)
    assert [place.in_flight for place in places] == [3, 3]


async def test_one_that_failed_the_work_gets_it_again_only_if_it_is_the_last() -> None:
    turns, (first, second) = made(2)
    second.in_flight = 5
    assert await turns.take(False, first) is second
    second.usable = False
    assert await turns.take(False, first) is first


async def test_a_full_one_gets_no_more_than_it_takes_and_one_that_pauses_nothing() -> None:
    turns, (first, second) = made(2)
    first.allowed, second.in_flight = 1, 3
    assert [await turns.take(False, None) for _ in range(2)] == [first, second]
    second.allowed, first.allowed, first.pausing = 9, 9, True
    assert await turns.take(False, None) is second


@pytest.mark.parametrize("usable", [2, 3])
async def test_of_three_that_can_be_used_the_first_gets_no_bulk(usable: int) -> None:
    turns, places = made(3)
    places[2].usable = usable == 3
    got = {id(await turns.take(True, None)) for _ in range(6)}
    assert (id(places[0]) in got) == (usable == 2)


async def test_queries_beside_bulk_go_to_the_first() -> None:
    turns, places = made(3)
    await turns.take(True, None)
    assert [await turns.take(False, None) for _ in range(5)] == [places[0]] * 5


async def test_queries_alone_go_to_all() -> None:
    turns, places = made(3)
    for _ in range(6):
        await turns.take(False, None)
    assert [place.in_flight for place in places] == [2, 2, 2]


async def test_bulk_leaves_room_for_a_query_which_goes_first() -> None:
    turns, places = made(3, most=8)
    for place in places:
        place.allowed = 99
    bulk = [asyncio.create_task(turns.take(True, None)) for _ in range(20)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in bulk) == 7
    assert await asyncio.wait_for(turns.take(False, None), 5) is places[0]
    query = asyncio.create_task(turns.take(False, None))
    await asyncio.sleep(0)
    assert not query.done()
    ended = bulk[0].result()
    assert ended is not None
    turns.give_back(ended, True)
    assert await asyncio.wait_for(query, 5) is places[0]
    for task in bulk:
        task.cancel()


async def test_who_waits_is_told_when_none_is_left() -> None:
    turns, places = made(2, most=1)
    await turns.take(False, None)
    waiting = asyncio.create_task(turns.take(False, None))
    await asyncio.sleep(0)
    for place in places:
        place.usable = False
    turns.look_again()
    assert await asyncio.wait_for(waiting, 5) is None


async def test_a_turn_that_comes_with_a_cancellation_is_given_back() -> None:
    turns, _ = made(1, most=1)
    held = await turns.take(False, None)
    waiting = asyncio.create_task(turns.take(False, None))
    await asyncio.sleep(0)
    assert held is not None
    turns.give_back(held, False)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await asyncio.wait_for(turns.take(False, None), 5) is held
