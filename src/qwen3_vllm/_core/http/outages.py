"""One warning for each time that a server fails requests, however many it fails."""

import asyncio
import logging

from qwen3_vllm import errors

logger = logging.getLogger(__name__)

_GATHERED = 0.25  # seconds; requests in flight fail almost together
# Seconds without a failure after which a response ends an outage. A full server answers and refuses by turns.
_CALM = 1.0
_CALM_WHEN_FULL = 30.0


class Outage:
    """The failures of one server since it last answered, to be used on one event loop."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._failures = 0
        self._first = ""
        self._delay = 0.0
        self._calm_at = 0.0
        self._soon: asyncio.TimerHandle | None = None

    def failed(self, error: Exception, delay: float) -> None:
        """Note a failed request that is sent again after `delay` seconds."""
        self._failures += 1
        full = isinstance(error, errors.OverloadedError)
        loop = asyncio.get_running_loop()
        self._calm_at = loop.time() + delay + (_CALM_WHEN_FULL if full else _CALM)
        if self._failures == 1:
            self._first, self._delay = str(error), delay
            self._soon = loop.call_later(_GATHERED, self.tell)
        else:
            logger.debug("%s", error)

    def tell(self) -> None:
        """Warn, unless that is done."""
        if self._soon is None:
            return
        self._soon.cancel()
        self._soon = None
        when = f"in {self._delay:.1f} s" if self._delay else "at once"
        if self._failures == 1:
            logger.warning("1 request failed: %s Trying again %s.", self._first, when)
        else:
            logger.warning(
                "%d requests failed, the first with: %s Trying again %s.", self._failures, self._first, when
            )

    def over(self) -> None:
        """Note a response."""
        if self._failures and asyncio.get_running_loop().time() > self._calm_at:
            self.tell()
            logger.info("%s answers again, after %d failed requests.", self._root, self._failures)
            self._failures = 0
