"""Every error this package raises.

    Qwen3VLLMError
    ├── ConfigurationError        an option, or a set of options, that cannot work
    ├── InputError                a query, document or instruction that cannot be sent
    │   └── TooLongError          longer than the server's context, and truncation is off
    ├── ServerUnreachableError    no connection: refused, reset, TLS, name not found
    ├── RequestTimeoutError       no complete response within `timeout`, or `total_timeout`, seconds
    ├── ServerError               the server responded with an error
    │   ├── BadRequestError       400, 413, 422: the server refuses what was sent
    │   ├── AuthenticationError   401, 403: missing or wrong API key
    │   ├── RouteNotFoundError    the server does not serve this API
    │   ├── ModelNotFoundError    the server does not serve this model
    │   └── OverloadedError       429, 503: too busy
    ├── InvalidAnswerError        a response with a wrong count, index, size or value
    ├── WrongServerError          a server that answers, but is not what this client needs
    ├── LaunchError               a server that could not work, seen before it boots
    ├── ServerDied                a server that ended, or was not ready in time
    └── DownloadError             a model that cannot be downloaded as asked

All can be imported from `qwen3_vllm`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Qwen3VLLMError(Exception):
    """Base of all errors of this package.

    Attributes:
        errors: For a call over many texts, the failure of each text that failed, by its index in the
            caller's list.
        partial: What did succeed in that call, float32 in the shape the call would have returned, with
            NaN where a text failed; None if nothing was done.
    """

    errors: Mapping[int, "Qwen3VLLMError"] = MappingProxyType({})
    partial: "NDArray[np.float32] | None" = None


class ConfigurationError(Qwen3VLLMError, ValueError):
    """An option, or a combination of options, cannot work, or contradicts what the server is.

    Names the option. Holds no value of a secret, nor another error that does.

    Attributes:
        problems: What is wrong, by the option's name; empty if no single option is at fault.
    """

    problems: Mapping[str, str] = MappingProxyType({})


class InputError(Qwen3VLLMError, ValueError):
    """A text cannot be sent: not a string, not encodable, or refused by the server."""


class TooLongError(InputError):
    """A text exceeds the server's context length and truncation is off, or nothing is left to cut."""


class ServerUnreachableError(Qwen3VLLMError, ConnectionError):
    """No connection to the server, or it broke before the response was complete.

    `cause`: "connect" (refused, no such host), "lost" (broke after it was made), "tls", or "proxy" (the
    environment's proxy refuses to connect).
    """

    def __init__(self, message: str, cause: Literal["connect", "lost", "tls", "proxy"] = "connect") -> None:
        super().__init__(message)
        self.cause = cause


class RequestTimeoutError(Qwen3VLLMError, TimeoutError):
    """The complete response did not arrive within `timeout` seconds, or all within `total_timeout`.

    `cause`: which of the two.
    """

    def __init__(self, message: str, cause: Literal["timeout", "total_timeout"] = "timeout") -> None:
        super().__init__(message)
        self.cause = cause


class ServerError(Qwen3VLLMError):
    """The server responded with an error; `status` is its HTTP status, or the code in its body."""

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_server_error, (type(self), str(self), self.status, self.retry_after), vars(self)


def _rebuild_server_error(
    kind: type[ServerError], message: str, status: int, retry_after: float | None
) -> ServerError:
    return kind(message, status=status, retry_after=retry_after)


class BadRequestError(ServerError):
    """The server refuses the request (400, 413, 422)."""


class AuthenticationError(ServerError):
    """The API key is missing or wrong (401, 403)."""


class RouteNotFoundError(ServerError):
    """The server does not serve this API (404 without a model's name, 405, 501, 400 "does not support")."""


class ModelNotFoundError(ServerError):
    """The server serves another model than the one asked for (404 NotFoundError)."""


class OverloadedError(ServerError):
    """The server is too busy (429, 503); `retry_after` is what it asked to wait, in seconds."""


class InvalidAnswerError(Qwen3VLLMError):
    """The server's response has a wrong count, index, size or value; nothing of it was used.

    `cause`: "content", which one text may have caused, "size" (larger than any correct response), "encoding"
    (compressed, which was not asked for), or "other request" (of this process, which it belongs to).
    """

    def __init__(
        self, message: str, cause: Literal["content", "size", "encoding", "other request"] = "content"
    ) -> None:
        super().__init__(message)
        self.cause = cause


class WrongServerError(Qwen3VLLMError):
    """The server works but is not what this client needs; the message says what to start instead."""


class LaunchError(Qwen3VLLMError):
    """The server could not work, as is seen before it boots; the message says what to change."""


class ServerDied(Qwen3VLLMError):
    """The server ended, or was not ready in time; the message holds the cause and the last log lines."""


class DownloadError(Qwen3VLLMError):
    """The download cannot be made as asked; the message says what to do about it."""
