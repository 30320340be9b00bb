"""When to send to a server again that was full, for all requests together."""

import asyncio

from qwen3_vllm._core.http.connections.loop import now

_FORGOTTEN = 8.0  # seconds after the last wait, from which on a refusal begins a new row


class Pace:
    """One server's pauses, to be used on one event loop.

    Attributes:
        refusals: Times in a row that the server was full; those refused together count once.
        taken: Texts of the largest request that the server did not find too many.
    """

    def __init__(self) -> None:
        self.refusals = 0
        self.taken = 0
        self._refused_at = 0.0
        self._opens_at = 0.0

    @property
    def pausing(self) -> bool:
        """Whether a pause goes on."""
        return self._opens_at > now()

    async def wait(self) -> None:
        """Wait for the end of the pause."""
        while (seconds := self._opens_at - now()) > 0:  # noqa: ASYNC110  a pause may be prolonged
            await asyncio.sleep(seconds)

    def counts(self, sent_at: float) -> bool:
        """Note a refusal of what was sent then; whether it is not one of those refused together."""
        if sent_at < self._refused_at:
            return False
        self._refused_at = now()
        if self._refused_at > self._opens_at + _FORGOTTEN:
            self.refusals = 0
        self.refusals += 1
        return True

    def pause(self, seconds: float) -> None:
        """Send nothing for this time."""
        self._opens_at = max(self._opens_at, now() + seconds)

    def answered(self, texts: int) -> None:
        """Note a good response."""
        self.refusals = 0
        if texts > self.taken:
            self.taken = texts
