"""Find out what a server, or a gateway before it, can do: try the next simpler form and see it work.

Never by one status or one wording, and never by a user's texts: what is tried are small requests that are
known to be good. What none of the forms can do is the real error.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import is_sick, may_lack

T = TypeVar("T")
_NONE: Mapping[str, errors.Qwen3VLLMError] = MappingProxyType({})

logger = logging.getLogger(__name__)


def try_forms(
    forms: Mapping[str, Call[T]],
    tried: Mapping[str, errors.Qwen3VLLMError] = _NONE,
    good_enough: Collection[str] = (),
) -> Flow[tuple[str, T]]:
    """Send one form of a request after another until one works; gives its name and its result.

    Args:
        forms: By name, the simplest last.
        tried: What failed before.
        good_enough: Forms that are hardly worse than any before them: where one works, what failed before
            is not tried once more. A gateway may take seconds for a 500.

    Raises:
        Qwen3VLLMError: What the simplest form ended in, if none works; or what says nothing of a form.
    """
    failures: dict[str, errors.Qwen3VLLMError] = {}
    for form, call in forms.items():
        (result,) = yield from send(replace(call, tentative=True))
        if not isinstance(result, errors.Qwen3VLLMError):
            if form in good_enough:
                return form, result
            return (yield from _better_one(forms, failures, form, result))
        if not may_lack(result):
            raise result
        failures[form] = result
    if any(map(is_sick, failures.values())):
        # Perhaps it is starting: wait for it as any request does, then see again.
        (result,) = yield from send(call)
        if not isinstance(result, errors.Qwen3VLLMError):
            return (yield from _better_one(forms, failures, form, result))
    raise _shared({**tried, **failures})


def _shared(failures: Mapping[str, errors.Qwen3VLLMError]) -> errors.Qwen3VLLMError:
    """Take the error of the simplest form that was told apart from one that is not there."""
    found = [error for error in failures.values() if not isinstance(error, errors.RouteNotFoundError)]
    error = found[-1] if found else list(failures.values())[-1]
    error.args = (f"{error} Tried without success: {'; '.join(failures)}.",)
    return error


def _better_one(
    forms: Mapping[str, Call[T]], failures: Mapping[str, errors.Qwen3VLLMError], form: str, result: T
) -> Flow[tuple[str, T]]:
    """Try once more what a sick server failed, now that it is seen to work."""
    for sick, error in failures.items():
        if is_sick(error) and sick != form:
            (again,) = yield from send(replace(forms[sick], tentative=True))
            if not isinstance(again, errors.Qwen3VLLMError):
                return sick, again
    return form, result


def try_all(*calls: Call[T]) -> Flow[list[T | errors.Qwen3VLLMError]]:
    """Send requests that may be missing there, at once; an error stands for what is.

    Raises:
        Qwen3VLLMError: What says nothing of a request itself: no connection, say.
    """
    results = yield from send(*(replace(call, tentative=True) for call in calls))
    sick = [index for index, result in enumerate(results) if is_sick(result)]
    again = yield from send(*(replace(calls[index], tentative=True) for index in sick))
    for index, result in zip(sick, again, strict=True):
        results[index] = result
    for result in results:
        if isinstance(result, errors.Qwen3VLLMError) and not may_lack(result):
            raise result
    return results


def try_one(call: Call[T]) -> Flow[T | errors.Qwen3VLLMError]:
    """As `try_all`, with one."""
    (result,) = yield from try_all(call)
    return result


def ask_most_texts(most: int, call: Callable[[int], Call[Any]]) -> Flow[int]:
    """Find out how many texts a request may have; `most` if so many are taken.

    Args:
        call: Makes a good request of so many texts.
    """
    known, refused, size = 0, most + 1, most
    while known < refused - 1:
        (answer,) = yield from send(replace(call(size), tentative=True))
        if not isinstance(answer, errors.Qwen3VLLMError):
            known = size
        elif may_lack(answer):
            refused = size
        else:
            return most  # it says nothing of the number
        size = (known + refused) // 2 if known else refused // 2
    return known or most  # where not even one is taken, it is not for their number
