"""A real server with a key: closed to strangers on every route, and the key nowhere to be seen."""

import os
import time
from pathlib import Path

import pytest
import requests

from .conftest import KEY, RunningServer, kubernetes_probe

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
OPEN = ("/health", "/ping")


def routes(server: RunningServer) -> list[tuple[str, str]]:
    """Return method and path of every route: those of the schema, and those it leaves out."""
    schema = requests.get(server.base_url + "/openapi.json", headers=AUTHORIZED, timeout=30).json()
    listed = [(method.upper(), path) for path, methods in schema["paths"].items() for method in methods]
    return [
        *listed,
        *(("GET", path) for path in ("/metrics", "/metrics/", "/docs", "/redoc", "/openapi.json")),
    ]


def status(server: RunningServer, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    body: dict[str, str] | None = {} if method == "POST" else None
    answer = requests.request(method, server.base_url + path, json=body, headers=headers, timeout=60)
    return answer.status_code


def test_every_route_is_closed_without_the_key(guarded: RunningServer) -> None:
    all_routes = routes(guarded)
    assert ("POST", "/score") in all_routes
    assert ("POST", "/tokenize") in all_routes
    closed = {route: status(guarded, *route) for route in all_routes if route[1] not in OPEN}
    assert set(closed.values()) == {401}, closed


def test_every_route_is_closed_to_a_wrong_key(guarded: RunningServer) -> None:
    wrong = {"Authorization": "Bearer " + KEY[:-1]}
    closed = {route: status(guarded, *route, wrong) for route in routes(guarded) if route[1] not in OPEN}
    assert set(closed.values()) == {401}, closed


def test_every_route_is_open_with_the_key(guarded: RunningServer) -> None:
    opened = {route: status(guarded, *route, AUTHORIZED) for route in routes(guarded)}
    assert 401 not in opened.values(), opened


@pytest.mark.parametrize("path", OPEN)
def test_liveness_needs_no_key(guarded: RunningServer, path: str) -> None:
    assert status(guarded, "GET", path) == 200


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", OPEN)
def test_liveness_is_open_to_reading_only(guarded: RunningServer, path: str, method: str) -> None:
    assert status(guarded, method, path) == 401


def test_refusals_are_not_logged(guarded: RunningServer) -> None:
    before = guarded.log_path.stat().st_size
    for _ in range(5):
        assert status(guarded, "GET", f"/{'x' * 50_000}") == 401
    time.sleep(1)
    assert guarded.log_path.stat().st_size - before < 1500


@pytest.mark.parametrize("path", ["//score", "/score/", "/./score", "/%73core", "/health/../score", "/SCORE"])
def test_odd_spellings_open_nothing(guarded: RunningServer, path: str) -> None:
    url = requests.Request("POST", guarded.base_url, json={"text_1": "a", "text_2": "b"}).prepare()
    url.url = guarded.base_url + path
    with requests.Session() as session:
        assert session.send(url, timeout=30, allow_redirects=False).status_code == 401


def test_scores_come_with_the_key(guarded: RunningServer) -> None:
    body = {"text_1": "a", "text_2": ["b", "c"]}
    answer = requests.post(guarded.base_url + "/score", json=body, headers=AUTHORIZED, timeout=60)
    assert [item["index"] for item in answer.json()["data"]] == [0, 1]


def test_the_key_is_in_no_process_list_and_no_log(guarded: RunningServer) -> None:
    command_lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command_lines.append(entry.read_bytes())
        except OSError:  # ended meanwhile
            continue
    assert any(b"ApiKeyGuard" in line for line in command_lines)
    own = f"/proc/{os.getpid()}/cmdline"
    assert not any(KEY.encode() in line for line in command_lines), own
    assert KEY not in guarded.log_path.read_text(errors="replace")
    assert KEY not in guarded.shown


def test_the_probe_of_kubernetes_passes(guarded: RunningServer, tmp_path: Path) -> None:
    done = kubernetes_probe("kubernetes-reranker.yaml", guarded.base_url, tmp_path)
    assert done.returncode == 0, done.stderr
