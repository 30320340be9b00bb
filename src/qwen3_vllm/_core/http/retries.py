"""Which failures are worth another attempt, and when; and which stop all further ones. Pure."""

import random

from qwen3_vllm import errors

_LONGEST_WAIT = 60.0  # seconds, whatever Retry-After says


def retry_delay(error: errors.Qwen3VLLMError, attempt: int) -> float | None:
    """Seconds to wait before sending again after the failure number `attempt` (from 0); None: do not."""
    match error:
        case errors.ServerUnreachableError(cause="tls" | "proxy") | errors.RouteNotFoundError():
            return None
        case errors.InvalidAnswerError(cause="size" | "other request"):
            return 0.0 if attempt == 0 else None  # a connection out of step; the next one is another
        case errors.RequestTimeoutError():
            # Once: the server may have been restarting. More would multiply the user's time limit.
            return 0.0 if attempt == 0 else None
        case errors.ServerUnreachableError(cause="lost") if attempt == 0:
            return 0.0  # most often an idle connection that the server was closing
        case errors.ServerError(status=408):
            return 0.0 if attempt == 0 else None  # likewise: the server waited for a request on it
        case errors.ServerError(retry_after=float(seconds)) if error.status in (429, 500, 502, 503, 504):
            return min(seconds, _LONGEST_WAIT)
        case errors.ServerError() if error.status != 429 and error.status < 500:
            return None
        case errors.ServerUnreachableError() | errors.ServerError():
            return min(8.0, 0.5 * 2.0**attempt) * random.uniform(0.5, 1.0)
        case _:
            return None


def may_succeed_elsewhere(error: errors.Qwen3VLLMError) -> bool:
    """Whether another server of the same model may do what this one failed."""
    if isinstance(error, errors.RequestTimeoutError):
        return error.cause != "total_timeout"
    return not isinstance(error, errors.InputError | errors.BadRequestError | errors.ConfigurationError)


def may_stop_all(result: object) -> bool:
    """Whether the server seems sick, rather than one call wrong."""
    return isinstance(result, errors.RequestTimeoutError | errors.OverloadedError) or (
        isinstance(result, errors.ServerError) and result.status >= 500
    )


def stops_all(result: object) -> bool:
    """Whether every further call to this server would fail the same way."""
    return isinstance(result, errors.ServerUnreachableError)


def refuses_route(result: object) -> bool:
    """Whether every further call to this route would fail the same way; another may be open."""
    return isinstance(
        result, errors.RouteNotFoundError | errors.AuthenticationError | errors.ModelNotFoundError
    )
