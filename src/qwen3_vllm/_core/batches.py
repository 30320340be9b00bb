"""Many texts in few requests: plan batches, send them, find the text that spoils one, sum up what failed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from qwen3_vllm import errors
from qwen3_vllm._core.http.flow import Flow, Round
from qwen3_vllm._core.texts import Failures, plural
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import is_too_long

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Refused = list[tuple[list[int], errors.Qwen3VLLMError]]

# A request of some 32,000 tokens keeps a GPU busy long enough; text has about 4 bytes a token.
BATCH_BYTES = 131_072
_NAMED = 5  # failures that a message names


class Collector(Protocol[T_contra]):
    """What takes the results of one call."""

    def take(self, batch: list[int], result: T_contra, /) -> None:
        """Keep the result of one batch; the order in which they come is any."""


def plan(indexes: Iterable[int], sizes: Sequence[int], max_count: int) -> list[list[int]]:
    """Group indexes, in order, into batches of at most `max_count` and about BATCH_BYTES bytes."""
    batches: list[list[int]] = []
    batch: list[int] = []
    room = -1
    for index in indexes:
        needed = sizes[index]
        if needed > room or len(batch) == max_count:
            batch = []
            batches.append(batch)
            room = BATCH_BYTES
        batch.append(index)
        room -= needed
    return batches


def send_batches(
    batches: list[list[int]],
    call: Callable[[list[int]], Call[T]],
    collector: Collector[T],
) -> Flow[tuple[Failures, bool]]:
    """Send batches, each in the request that `call` makes of it.

    A batch that the server refuses, cannot queue, or answers with nonsense is halved until the text at fault
    is alone, so that it takes no other with it: each text is sent at most log2(batch) + 1 times. Before the
    server has answered anything, a full or confused one may be the problem itself: then one batch is halved,
    and the others wait for what becomes of it.

    Returns:
        What failed for good, by index; and whether a batch of several texts was refused, or answered with
        nonsense.
    """
    division = _Division()
    while batches:
        ended = yield from _send_once(batches, call, collector)
        batches = division.after(batches, ended)
    return division.failures, division.refused_several


class _Division:
    """Decides what to send again, whole or in parts, of batches that failed.

    Attributes:
        failures: What failed for good, by index; complete when nothing is to be sent again.
        refused_several: Whether a batch of several texts was refused, not for a full queue.
    """

    def __init__(self) -> None:
        self.failures: Failures = {}
        self.refused_several = False
        self._held: Refused = []  # what waits until the server has answered something
        self._repeated: set[tuple[int, int]] = set()
        self._most = 0  # texts of the largest batch that was answered
        self._least = BATCH_BYTES  # texts of the smallest batch that did not fit into the queue
        self._tried = False

    def after(self, batches: list[list[int]], ended: list[errors.Qwen3VLLMError | None]) -> list[list[int]]:
        """Take how each batch ended, None for an answer, and return what to send next."""
        again: list[list[int]] = []
        to_divide: Refused = []
        for batch, error in self._refused(batches, ended):
            if _is_full(error) and len(batch) <= self._most:  # it is not too large, the server is full
                if self._is_first(batch):
                    again.append(batch)
                else:
                    self._fail(batch, error)
            elif len(batch) > 1 and _may_be_size(error):
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
        """Choose what to divide now; what may be the server's own fault waits for its first answer."""
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
    """Whether fewer texts, or all but one, may succeed."""
    if isinstance(error, errors.InvalidAnswerError):
        return error.cause == "content"
    return isinstance(error, errors.BadRequestError) or _is_full(error)


def _is_full(error: errors.Qwen3VLLMError) -> bool:
    """Whether fewer texts may fit into the server's queue.

    vLLM counts each text as a request when its queue is full. Who says when to come back limits a rate.
    """
    return isinstance(error, errors.OverloadedError) and error.status == 503 and error.retry_after is None


def _send_once(
    batches: list[list[int]], call: Callable[[list[int]], Call[T]], collector: Collector[T]
) -> Flow[list[errors.Qwen3VLLMError | None]]:
    """Send each batch in one request, and hand each result over as it comes.

    Returns:
        What went wrong with each batch; None where the collector has its result.
    """
    ended: list[errors.Qwen3VLLMError | None] = [None] * len(batches)

    def deliver(index: int, result: T | errors.Qwen3VLLMError) -> None:
        if isinstance(result, errors.Qwen3VLLMError):
            ended[index] = result
        else:
            collector.take(batches[index], result)

    yield Round([replace(call(batch), texts=len(batch)) for batch in batches], deliver, is_usage=True)
    return ended


def failed(
    failures: Mapping[int, errors.Qwen3VLLMError], total: int, noun: str, partial: NDArray[Any] | None
) -> errors.Qwen3VLLMError:
    """Make the one error of a call out of the failures of its texts."""
    by_index = {index: _of_text(failures[index], index, noun) for index in sorted(failures)}
    of_server = next((e for e in by_index.values() if not isinstance(e, errors.InputError)), None)
    if of_server is not None:
        error = of_server
        if len(failures) < total:
            error.add_note(f"{len(failures)} of {total} {plural(noun)} failed; error.partial has the others.")
    else:
        named = "; ".join(str(error) for error in list(by_index.values())[:_NAMED])
        more = f"; and {len(by_index) - _NAMED} more" if len(by_index) > _NAMED else ""
        all_too_long = all(isinstance(error, errors.TooLongError) for error in by_index.values())
        kind = errors.TooLongError if all_too_long else errors.InputError
        error = kind(f"{len(by_index)} of {total} {plural(noun)} cannot be used: {named}{more}")
    error.errors, error.partial = by_index, partial
    return error


def _of_text(error: errors.Qwen3VLLMError, index: int, noun: str) -> errors.Qwen3VLLMError:
    """What went wrong with one text, with its index; a failure of the server stays as it is."""
    if isinstance(error, errors.InputError):
        about: errors.Qwen3VLLMError = type(error)(f"{noun} {index} {error}")
    elif isinstance(error, errors.BadRequestError):
        kind = errors.TooLongError if is_too_long(error) else errors.InputError
        about = kind(f"{noun} {index} was refused: {error}")
    else:
        return error
    about.__cause__ = error
    return about
