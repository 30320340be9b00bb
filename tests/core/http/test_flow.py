"""Time limits of flows, without a server."""

import asyncio

import pytest

from qwen3_vllm import errors
from qwen3_vllm._core.http.flow import Deadline, Flow, Round, Shares, drive


async def test_the_wait_for_another_flow_ends_with_the_time_limit() -> None:
    lock = asyncio.Lock()
    await lock.acquire()

    def flow() -> Flow[str]:
        try:
            yield lock
        except errors.RequestTimeoutError as error:
            yield Round([], lambda index, result: None)
            return f"{error.cause}: {error}"
        return "got the lock"

    async def send_off(step: Round | Shares) -> None:
        assert isinstance(step, Round)

    said = await drive(flow(), Deadline(0.01, "http://h"), send_off)

    assert said.startswith("total_timeout: http://h")


async def test_a_time_out_of_the_work_itself_is_not_the_time_limit() -> None:
    async def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await Deadline(60, "http://h").met_by(work())
