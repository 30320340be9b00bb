"""What a server can take, as its responses show: how many requests at once, and when."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen3_vllm import errors
from qwen3_vllm._core.http.outages import Outage
from qwen3_vllm._core.http.pace import Pace
from qwen3_vllm._core.http.retries import retry_delay
from qwen3_vllm._core.http.slots import ConcurrencyLimit, Slot
from qwen3_vllm._core.settings import ServerSettings
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import may_lack

_SOON = 0.25  # of the time limit; while answers take longer, no more requests are put in flight
_MOST_TRIES = 30  # of a request that a full server refuses while it answers others
_IN_ANOTHER_SLOT = -1.0


@dataclass(slots=True)
class Tries:
    """How often one request may fail, was sent, and failed while the server did not answer others instead."""

    most: int
    made: int = 0
    failed: int = 0


class Load:
    """What a server can take, as its responses show."""

    def __init__(self, settings: ServerSettings, root: str, others: Callable[[], bool] | None = None) -> None:
        """`others`: whether another server can do the work now; None: this is the only one."""
        self._others = others
        self.limit = ConcurrencyLimit(settings.max_concurrency, soon=settings.timeout * _SOON)
        self.pace = Pace()
        self.outage = Outage(root)

    def answered(self, slot: Slot, call: Call[Any]) -> None:
        self.limit.answered(slot)
        self.pace.answered(call.texts)
        self.outage.over()

    async def failed(
        self, slot: Slot, call: Call[Any], error: errors.Qwen3VLLMError, tries: Tries
    ) -> float | None:
        """Note a failure; returns seconds until the next attempt in another slot, 0 in this one, or None.

        A negative number releases the slot, too: the pause of all requests is the wait.
        """
        again = retry_delay(error, tries.failed) if tries.failed < tries.most else None
        full = isinstance(error, errors.OverloadedError)
        elsewhere = self._others is not None and (not full or self._others())
        if elsewhere or (call.tentative and may_lack(error)):
            again = None
        tries.made += 1
        tries.failed += 1
        if isinstance(error, errors.RequestTimeoutError):
            hangs = await self.limit.timed_out(slot, for_good=again is None)
            if again is not None and not hangs:
                again = _IN_ANOTHER_SLOT
        elif not isinstance(error, errors.ServerUnreachableError):
            self.limit.heard()
        if isinstance(error, errors.OverloadedError):
            await self.limit.overloaded(slot)
            refused = self._refused(slot, call, error, again, tries)
            again = None if elsewhere else refused
        if again is not None:
            self.outage.failed(error, max(again, 0.0))
        return again

    def _refused(
        self,
        slot: Slot,
        call: Call[Any],
        error: errors.OverloadedError,
        again: float | None,
        tries: Tries,
    ) -> float | None:
        if error.retry_after is not None:
            self.pace.pause(retry_delay(error, 0) or 0.0)
            return _IN_ANOTHER_SLOT if again == 0 else again
        if self.pace.counts(slot.acquired_at):
            self.pace.pause(retry_delay(error, self.pace.refusals - 1) or 0.0)
        if error.status == 503 and call.texts > max(1, self.pace.taken):
            return None  # too many at once, perhaps
        if tries.most and self.pace.refusals == 1 and tries.made < _MOST_TRIES:
            tries.failed = max(0, tries.failed - 1)  # it answered others: this one will have its turn
            return retry_delay(error, tries.failed)
        return again if self.pace.refusals <= tries.most else None
