"""The guard alone: who gets in, and by which path."""

import asyncio
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
    method: str = "POST",
    root_path: str = "",
) -> tuple[bool, list[Message]]:
    """Return whether the application was reached, and what the guard sent itself."""
    inner, sent = Inner(), []
    headers = [
        (b"authorization", given if isinstance(given, bytes) else given.encode()) for given in authorization
    ]
    scope = {"type": kind, "path": path, "method": method, "root_path": root_path, "headers": headers}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(ApiKeyGuard(inner)(scope, None, send))  # type: ignore[arg-type]
    return bool(inner.reached), sent


@pytest.fixture(autouse=True)
def one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN3_VLLM_API_KEY_FILE", raising=False)
    monkeypatch.delenv("QWEN3_VLLM_OPEN_METRICS", raising=False)
    monkeypatch.setenv("VLLM_API_KEY", "right")


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_liveness_is_open(path: str) -> None:
    assert ask(path)[0]


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
    ],
)
def test_every_other_path_is_closed(path: str) -> None:
    reached, sent = ask(path)
    assert not reached
    assert sent[0]["status"] == 401
    assert b'"error"' in sent[1]["body"]
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"])
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
        b"Bearer \xff",
    ],
)
def test_anything_else_does_not(given: str | bytes) -> None:
    assert not ask("/score", given)[0]


def test_two_authorization_headers_are_refused() -> None:
    assert not ask("/score", "Bearer wrong", "Bearer right")[0]


def test_a_websocket_is_closed_before_it_opens() -> None:
    reached, sent = ask("/v1/realtime", kind="websocket")
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
    ],
)
def test_a_root_path_is_cut_as_the_router_cuts_it(path: str, reached: bool) -> None:
    assert ask(path, root_path="/api")[0] is reached


def test_metrics_open_by_option_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN3_VLLM_OPEN_METRICS", "1")
    assert ask("/metrics")[0]
    assert not ask("/score")[0]
    assert not ask("/metrics/x")[0]


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
