"""What to send again, whole or in parts, of batches that a server refused. Pure."""

import sys

from qwen3_vllm import errors
from qwen3_vllm._core.texts import Failures
from qwen3_vllm._core.vllm_api.error_bodies import may_lack

Refused = list[tuple[list[int], errors.Qwen3VLLMError]]


class Division:
    """Decides what to send again, whole or in parts, of batches that failed.

    Attributes:
        failures: What failed for good, by index; complete when nothing is to be sent again.
        refused_several: Whether a batch of several texts was refused, not for a full queue.
    """

    def __init__(self, *, known_good: bool = False) -> None:
        """`known_good`: the server was just seen to work, so that whatever it refuses is the texts' fault."""
        self._known_good = known_good
        self.failures: Failures = {}
        self.refused_several = False
        self._held: Refused = []  # what waits until the server has answered something
        self._repeated: set[tuple[int, int]] = set()
        self._most = 0  # texts of the largest batch that was answered
        self._least = sys.maxsize  # texts of the smallest batch that did not fit into the queue
        self._tried = False

    def after(self, batches: list[list[int]], ended: list[errors.Qwen3VLLMError | None]) -> list[list[int]]:
        """Take how each batch ended, None for a response, and return what to send next."""
        again: list[list[int]] = []
        to_divide: Refused = []
        for batch, error in self._refused(batches, ended):
            if _is_full(error) and len(batch) <= self._most:  # it is not too large, the server is full
                if self._is_first(batch):
                    again.append(batch)
                else:
                    self._fail(batch, error)
            elif len(batch) > 1 and (_may_be_size(error) or (self._known_good and may_lack(error))):
                to_divide.append((batch, error))
                self.refused_several = self.refused_several or not _is_full(error)
            else:
                self._fail(batch, error)
        for batch, error in self._due(to_divide):
            again += self._divide(batch, error)
        if not again:
            for batch, error in self._held:
                self._fail(batch, error)
        return again

    def _refused(self, batches: list[list[int]], ended: list[errors.Qwen3VLLMError | None]) -> Refused:
        """Choose the batches that failed, and learn from all of them how many texts fit into the queue."""
        refused: Refused = []
        for batch, error in zip(batches, ended, strict=True):
            if error is None:
                self._most = max(self._most, len(batch))
            else:
                refused.append((batch, error))
                if _is_full(error):
                    self._least = min(self._least, len(batch))
        return refused

    def _is_first(self, batch: list[int]) -> bool:
        """Whether a batch has not been repeated yet; from now on it has."""
        key = batch[0], len(batch)
        if key in self._repeated:
            return False
        self._repeated.add(key)
        return True

    def _due(self, to_divide: Refused) -> Refused:
        """Choose what to divide now; what may be the server's own fault waits for its first response."""
        if self._most:
            due, self._held = to_divide + self._held, []
        else:
            due, waiting = _first_to_divide(to_divide, self._tried)
            self._held += waiting
            self._tried = True
        return due

    def _divide(self, batch: list[int], error: errors.Qwen3VLLMError) -> list[list[int]]:
        """Cut a batch into what to send now; a queue that has taken nothing yet is tried with one part."""
        knows_size = _is_full(error) and self._least <= 2 * self._most
        parts = _parts(batch, self._most if knows_size else -(-len(batch) // 2))
        if _is_full(error) and not self._most:
            self._held += [(part, error) for part in parts[1:]]
            return parts[:1]
        return parts

    def _fail(self, batch: list[int], error: errors.Qwen3VLLMError) -> None:
        self.failures.update(dict.fromkeys(batch, error))


def _first_to_divide(refused: Refused, tried: bool) -> tuple[Refused, Refused]:
    """Choose what to send in parts to a server that has answered nothing yet, and what waits meanwhile.

    Bad requests are the texts' own fault. Of what a full server refused, and of what first came back as
    nonsense, one batch shows whether parts of it do better.
    """
    divided = [each for each in refused if isinstance(each[1], errors.BadRequestError)]
    unsure = [each for each in refused if not isinstance(each[1], errors.BadRequestError)]
    count = len(unsure) if tried and not any(_is_full(error) for _, error in unsure) else 1
    return divided + unsure[:count], unsure[count:]


def _parts(batch: list[int], size: int) -> list[list[int]]:
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def _may_be_size(error: errors.Qwen3VLLMError) -> bool:
    """Whether splitting the batch might help."""
    if isinstance(error, errors.InvalidAnswerError):
        return error.cause == "content"
    return isinstance(error, errors.BadRequestError) or _is_full(error)


def was_divided(error: errors.Qwen3VLLMError) -> bool:
    """Whether batches that failed so were halved until the text at fault was alone."""
    return isinstance(error, errors.BadRequestError | errors.InvalidAnswerError)


def _is_full(error: errors.Qwen3VLLMError) -> bool:
    """Whether fewer texts may fit into the server's queue.

    vLLM counts each text as a request when its queue is full. Who says when to come back limits a rate.
    """
    return isinstance(error, errors.OverloadedError) and error.status == 503 and error.retry_after is None
