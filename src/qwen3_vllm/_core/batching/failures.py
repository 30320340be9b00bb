"""The one error of a call, made of what went wrong with its texts. Pure."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from qwen3_vllm import errors
from qwen3_vllm._core.plurals import plural
from qwen3_vllm._core.vllm_api.error_bodies import is_too_long

_NAMED = 5  # failures that a message names


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
