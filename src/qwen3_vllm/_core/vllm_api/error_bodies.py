"""What a server's error says, in every shape and in every release's words."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from qwen3_vllm import errors
from qwen3_vllm._core.vllm_api.calls import Answer, excerpt, shortened

# Timed out, too many requests, unavailable, gateway timed out: of any form of a request.
_SAY_NOTHING = frozenset({407, 408, 429, 503, 504})
# Of LiteLLM, which rests a model for 5 seconds after a failure, and of OpenAI.
_TRY_AGAIN = re.compile(r"try again in (\d+(?:\.\d+)?) ?s", re.IGNORECASE)
_CONTEXT = re.compile(r"maximum context length\D{0,20}(\d+)")
_LOOKS_LIKE_ERROR = re.compile(rb'\s*\{\s*"error"')


def raise_for_error(answer: Answer) -> None:
    """Raise what a response says went wrong, whatever its shape.

    vLLM's errors come as {"error": {"message", "type", "code"}}, as {"error": "Unauthorized"}, flat in
    0.10.0, as {"detail": …}, or empty; 0.15.1 sends them with HTTP status 200.
    """
    if answer.status < 400 and not _LOOKS_LIKE_ERROR.match(answer.content):
        return
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        body = None
    found = body.get("error") if isinstance(body, dict) else None
    if found is None and isinstance(body, dict) and body.get("object") == "error":
        found = body
    if answer.status < 400 and found is None:
        return
    status, kind, message = answer.status, "", ""
    if isinstance(found, dict):
        kind, message = str(found.get("type", "")), str(found.get("message", ""))
        code = found.get("code")
        if status < 400:
            status = code if isinstance(code, int) and code >= 400 else 500
    elif isinstance(found, str):
        message, status = found, status if status >= 400 else 500
    elif isinstance(body, dict) and "detail" in body:
        message = str(body["detail"])
    message = shortened(answer.mask(message)) or excerpt(answer)
    advice = _advice(status)
    raise _error_class(status, kind, message, body)(
        f"{answer.url} responded with {status}: {message.rstrip(' .') if advice else message}{advice}",
        status=status,
        retry_after=_retry_after(answer.headers, message if status in (429, 503) else ""),
    )


def _error_class(status: int, kind: str, message: str, body: Any) -> type[errors.ServerError]:
    if status in (401, 403):
        return errors.AuthenticationError
    if status == 404 and (kind == "NotFoundError" or "does not exist" in message):
        return errors.ModelNotFoundError
    if status in (404, 405, 501) or (status == 400 and re.search(r"does not support .{0,40}API", message)):
        return errors.RouteNotFoundError
    if status in (400, 413, 422):
        return errors.BadRequestError
    if status in (429, 503):
        return errors.OverloadedError
    return errors.ServerError


def _advice(status: int) -> str:
    if status in (401, 403):
        return ". Pass the server's key as api_key, or set VLLM_API_KEY"
    return ""


def _retry_after(headers: Mapping[str, str], message: str) -> float | None:
    """Seconds of a Retry-After header; of a date, by the server's own clock if the response has it.

    Gateways that send none may say it in words.
    """
    value = headers.get("retry-after", "")
    words = _TRY_AGAIN.search(message)
    if not value and words:
        return float(words[1])
    try:
        return max(0.0, float(value))
    except ValueError:
        until, now = _timestamp(value), _timestamp(headers.get("date", ""))
    return None if until is None else max(0.0, until - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def may_lack(error: object) -> bool:
    """Whether an error may mean that the server, or a gateway before it, lacks this form of a request.

    Gateways say so with any status and any words. Who is too busy, too slow or not there says nothing.
    """
    if isinstance(error, errors.ServerError):
        return error.status not in _SAY_NOTHING
    return isinstance(error, errors.InvalidAnswerError) and error.cause == "content"


def is_sick(error: object) -> bool:
    """Whether an error may as well come from a server that is about to recover."""
    return isinstance(error, errors.ServerError) and error.status in (500, 502)


def is_too_long(error: object) -> bool:
    """Whether the server refused an input for its length (the same words in every vLLM release)."""
    return isinstance(error, errors.ServerError) and "maximum context length" in str(error)


def context_in(error: object) -> int | None:
    """The context length that a refusal of a longer input names; None if it names none."""
    found = _CONTEXT.search(str(error)) if is_too_long(error) else None
    return int(found[1]) if found else None


def pools_full_context(error: object) -> bool:
    """Whether the server refused an input for its length as vLLM does from 0.32.0 on (the same in 0.33)."""
    return isinstance(error, errors.ServerError) and "even without any output tokens" in str(error)
