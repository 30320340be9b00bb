"""ASGI middleware that lets nobody in without the API key.

For `vllm serve … --middleware qwen3_vllm.serving.guard.ApiKeyGuard`.

vLLM's own `--api-key` guards /v1 and leaves /score, /rerank, /classify, /tokenize and /metrics open. This
guards every route and method but GET and HEAD of /health and /ping. Standard library only, so that the file
can also be mounted alone into a container.

The key travels in one header, `Authorization: Bearer <key>`, with `bearer` in any case. Nothing else counts:
no X-API-Key, no Basic, no parameter, no cookie, no second Authorization header.

Environment of the server:
    QWEN3_VLLM_API_KEY_FILE: a file, one key per line; blank lines and those that start with # are skipped.
    VLLM_API_KEY: one key, read where no file is named.
    QWEN3_VLLM_OPEN_METRICS: `1` leaves /metrics open for a scraper.
"""

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_ROUTES = frozenset({"/health", "/ping"})
OPEN_METHODS = frozenset({"GET", "HEAD"})
METRICS_ROUTES = frozenset({"/metrics", "/metrics/"})
_UNAUTHORIZED = (
    b'{"error": {"message": "A valid API key is needed: send the header Authorization: Bearer <key>.", '
    b'"type": "AuthenticationError", "param": null, "code": 401}}'
)


class ApiKeyGuard:
    """Answers 401 to everyone who does not send `Authorization: Bearer` with one of the keys.

    Raises:
        RuntimeError: No key is configured. The server then does not start: a guard without a key
            would either lock everybody out or let everybody in.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in read_keys(os.environ)]
        open_metrics = os.environ.get("QWEN3_VLLM_OPEN_METRICS") == "1"
        self._open_routes = OPEN_ROUTES | METRICS_ROUTES if open_metrics else OPEN_ROUTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope) or self._is_authorized(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "API key needed"})
        else:
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(_UNAUTHORIZED)).encode()),
                (b"www-authenticate", b"Bearer"),
            ]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _UNAUTHORIZED})

    def _is_open(self, scope: Scope) -> bool:
        return scope.get("method") in OPEN_METHODS and _route(scope) in self._open_routes

    def _is_authorized(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        digest = _digest(key.strip())
        # Every key is compared, so that the time taken tells neither which matched nor how far.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def read_keys(environment: MutableMapping[str, str]) -> list[str]:
    """Return the keys that the environment names, never empty.

    Raises:
        RuntimeError: There is none, or the file cannot be read. The message holds no key.
    """
    file_name = environment.get("QWEN3_VLLM_API_KEY_FILE")
    if file_name:
        try:
            lines = [line.strip() for line in Path(file_name).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise RuntimeError(f"cannot read the API key file {file_name}: {type(error).__name__}") from None
        keys = [line for line in lines if line and not line.startswith("#")]
    else:
        keys = [key for key in [environment.get("VLLM_API_KEY", "").strip()] if key]
    if not keys:
        raise RuntimeError("no API key: set VLLM_API_KEY, or QWEN3_VLLM_API_KEY_FILE to a file with one")
    return keys


def _digest(key: bytes) -> bytes:
    """Hash to one length: comparing keys of unequal length would tell the length."""
    return hashlib.sha256(key).digest()


def _route(scope: Scope) -> str:
    """Return the path that the router will see, cut just as Starlette does: any difference is a hole."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if root_path and f"{path}/".startswith(f"{root_path}/"):
        return path[len(root_path) :]
    return path
