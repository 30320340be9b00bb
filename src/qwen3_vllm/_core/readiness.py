"""Waiting for a server that starts beside its client: what passes by itself, and when to try again."""

import logging
from time import monotonic

from qwen3_vllm import errors

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


class Waiting:
    """One wait of so many seconds at most."""

    def __init__(self, timeout: float) -> None:
        if not timeout > 0:
            raise errors.ConfigurationError(f"timeout must be above 0, not {timeout!r}")
        self._timeout = timeout
        self._until = monotonic() + timeout
        self._pause = _FIRST_PAUSE
        self._told = ""

    @property
    def seconds_left(self) -> float:
        return max(self._until - monotonic(), 0.001)

    def pause_after(self, error: errors.Qwen3VLLMError) -> float:
        """Seconds until the next try.

        Raises:
            RequestTimeoutError: There is no time for another.
            Qwen3VLLMError: `error`, which waiting cannot fix.
        """
        if not _mends_itself(error):
            raise error
        pause = self._pause
        if monotonic() + pause >= self._until:
            raise errors.RequestTimeoutError(
                f"The server was not ready within {self._timeout:g} s. The last problem: {error}",
                "total_timeout",
            ) from error
        if str(error) != self._told:
            logger.info("Waiting for the server: %s", error)
            self._told = str(error)
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        return pause


def _mends_itself(error: errors.Qwen3VLLMError) -> bool:
    """Whether a server that is loading, or a proxy before one, may fail so."""
    match error:
        case errors.ServerUnreachableError():
            return error.cause in ("connect", "lost")
        case errors.RequestTimeoutError() | errors.OverloadedError():
            return True
        case errors.RouteNotFoundError() | errors.ModelNotFoundError():
            return error.status == 404  # a router that has no backend yet
        case errors.ServerError():
            return error.status >= 500
        case _:
            return False
