"""Whether one of several servers is used: once it was checked, and not for a while after it has failed."""

import random
from collections.abc import Callable

from qwen3_vllm import errors

_FAILURES = 2  # in a row: one alone may be a text's fault, or that of a connection just closed
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds, before the jitter


class Health:
    """One server's record, to be used on one event loop.

    Attributes:
        usable: Whether it was checked, and has not been set aside since.
        error: Why it is not usable; None before its first check.
        answered_at: When it last gave a good response.
    """

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        """Begin unchecked, and due; `jitter` gives numbers from 0 to 1."""
        self.usable = False
        self.error: errors.Qwen3VLLMError | None = None
        self._clock, self._jitter = clock, jitter
        self._failures = 0
        self._pauses = 0
        self._again_at = clock()
        self._checked_at = 0.0
        self.answered_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to check it again."""
        return not self.usable and self._clock() >= self._again_at

    def passed(self) -> None:
        """Note that it was checked, and is right."""
        self.usable, self.error = True, None
        self._failures = 0
        self._checked_at = self._clock()

    def answered(self) -> None:
        """Note a good response."""
        self._failures = self._pauses = 0
        self.answered_at = self._clock()

    def failed(self, error: errors.Qwen3VLLMError, began: float) -> bool:
        """Note what a request ended in that began then; whether the server is set aside for it.

        One that is too full is in order, and so is one that is slow, but answers others.
        """
        full = isinstance(error, errors.OverloadedError)
        timed_out = isinstance(error, errors.RequestTimeoutError)
        if full or not self.usable or began < self._checked_at or (timed_out and self.answered_at > began):
            return False
        self._failures += 1
        refused = isinstance(error, errors.ServerUnreachableError) and error.cause != "lost"
        if not (timed_out or refused) and self._failures < _FAILURES:
            return False
        self.set_aside(error)
        return True

    def set_aside(self, error: errors.Qwen3VLLMError) -> float:
        """Do not use it; returns for how many seconds, more each time until it has answered."""
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._pauses) * (0.5 + 0.5 * self._jitter())
        self.usable, self.error = False, error
        self._pauses = min(self._pauses + 1, 10)
        self._again_at = self._clock() + pause
        return pause
