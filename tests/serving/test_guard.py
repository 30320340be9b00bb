"""The guard alone: who gets in, and by which path."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qwen3_vllm.serving.guard import ApiKeyGuard, read_keys

Message = dict[str, Any]


class Inner:
    """The application behind the guard; counts who reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope.get("path", scope["type"]))


def ask(
    path: str,
    *authorization: str | bytes,
    kind: str = "http",
    method: str | None = "POST",
    root_path: str = "",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[bool, list[Message]]:
    """Return whether the application was reached, and what the guard sent itself."""
    inner, sent = Inner(), []
    sent_headers = [
        (b"authorization", given if isinstance(given, bytes) else given.encode()) for given in authorization
    ]
    scope = {"type": kind, "path": path, "root_path": root_path, "headers": [*headers, *sent_headers]}
    if method is not None:
        scope["method"] = method

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(ApiKeyGuard(inner)(scope, None, send))  # type: ignore[arg-type]
    return bool(inner.reached), sent


@pytest.fixture(autouse=True)
def one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN3_VLLM_API_KEY_FILE", raising=False)
    monkeypatch.delenv("QWEN3_VLLM_OPEN_METRICS", raising=False)
    monkeypatch.setenv("VLLM_API_KEY", "right")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_liveness_is_open(path: str, method: str) -> None:
    assert ask(path, method=method)[0]


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE", "PATCH", "get", "TRACE", "CONNECT"])
@pytest.mark.parametrize("path", ["/health", "/ping", "/metrics"])
def test_liveness_is_open_to_reading_only(monkeypatch: pytest.MonkeyPatch, path: str, method: str) -> None:
    monkeypatch.setenv("QWEN3_VLLM_OPEN_METRICS", "1")
    assert not ask(path, method=method)[0]
    assert ask(path, "Bearer right", method=method)[0]


@pytest.mark.parametrize(
    "path",
    [
        "/score",
        "/v1/embeddings",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/",
        "",
        "//health",
        "/health/",
        "/HEALTH",
        "/health/../score",
        "/score/../health",
        "/health;x",
        "/healthz",
        "/ping/score",
        " /health",
        "/%68ealth",
        "/health\x00",
        "/health/../../score",
        "/v2/embed",
        "/ping?x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_other_path_is_closed(path: str, method: str) -> None:
    reached, sent = ask(path, method=method)
    assert not reached
    assert sent[0]["status"] == 401
    assert b'"error"' in sent[1]["body"]
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "health"])
def test_every_method_is_closed(method: str) -> None:
    assert not ask("/score", method=method)[0]


@pytest.mark.parametrize("given", ["Bearer right", "bearer right", "BEARER right", "Bearer  right"])
def test_the_right_key_gets_in(given: str) -> None:
    assert ask("/score", given)[0]


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        "Bearer",
        "Bearer ",
        "right",
        "Basic right",
        "Bearer right2",
        "Bearer righ",
        "Bearer RIGHT",
        "Bearer right,Bearer right",
        "Bearer\tright",
        "Token right",
        "",
        b"Bearer \xff",
    ],
)
def test_anything_else_does_not(given: str | bytes) -> None:
    assert not ask("/score", given)[0]


def test_two_authorization_headers_are_refused() -> None:
    assert not ask("/score", "Bearer wrong", "Bearer right")[0]


@pytest.mark.parametrize("name", [b"x-api-key", b"api-key", b"proxy-authorization", b"cookie"])
def test_no_other_header_counts(name: bytes) -> None:
    assert not ask("/score", headers=[(name, b"right"), (name, b"Bearer right")])[0]


def test_the_names_of_headers_may_be_of_any_case() -> None:
    assert ask("/score", headers=[(b"Authorization", b"Bearer right")])[0]


@pytest.mark.parametrize("path", ["/v1/realtime", "/health"])
def test_a_websocket_is_closed_before_it_opens(path: str) -> None:
    reached, sent = ask(path, kind="websocket", method=None)
    assert not reached
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert ask("/v1/realtime", "Bearer right", kind="websocket")[0]


def test_the_lifespan_passes() -> None:
    assert ask("", kind="lifespan")[0]


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("/api/health", True),
        ("/health", True),
        ("/api/score", False),
        ("/apihealth", False),
        ("/api/api/health", False),
        ("/api", False),
        ("/api//health", False),
    ],
)
def test_a_root_path_is_cut_as_the_router_cuts_it(path: str, reached: bool) -> None:
    assert ask(path, root_path="/api", method="GET")[0] is reached


def test_a_root_path_that_is_an_open_route_opens_nothing() -> None:
    assert not ask("/health", root_path="/health", method="GET")[0]
    assert ask("/health/health", root_path="/health", method="GET")[0]
    assert not ask("/health/score", root_path="/health", method="GET")[0]


def test_metrics_open_by_option_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN3_VLLM_OPEN_METRICS", "1")
    assert ask("/metrics", method="GET")[0]
    assert not ask("/score", method="GET")[0]
    assert not ask("/metrics/x", method="GET")[0]


def test_a_file_holds_several_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# team a\none\n\n  two  \n")
    monkeypatch.setenv("QWEN3_VLLM_API_KEY_FILE", str(keys))
    assert ask("/score", "Bearer one")[0]
    assert ask("/score", "Bearer two")[0]
    assert not ask("/score", "Bearer right")[0]
    assert not ask("/score", "Bearer # team a")[0]


def test_without_a_key_there_is_no_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "  ")
    with pytest.raises(RuntimeError, match="no API key"):
        ApiKeyGuard(Inner())
    empty = tmp_path / "keys"
    empty.write_text("# nothing\n")
    with pytest.raises(RuntimeError, match="no API key"):
        read_keys({"QWEN3_VLLM_API_KEY_FILE": str(empty)})
    with pytest.raises(RuntimeError, match="cannot read the API key file"):
        read_keys({"QWEN3_VLLM_API_KEY_FILE": str(tmp_path / "missing")})
