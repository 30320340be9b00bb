"""Which balancer stands in front of several servers."""

from pathlib import Path

import pytest

from qwen3_vllm.serving import balancer


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        ("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/", None),
        ("HAProxy version 3.2.0 2025/05/28 - https://haproxy.org/", None),
        ("HAProxy version 2.10-dev1 2030/01/01", None),
        ("HA-Proxy version 2.2.9-2+deb11u7 2024/11/18 - https://haproxy.org/", "HAProxy 2.2 is installed"),
        ("HA-Proxy version 2.0.33-0ubuntu0.1 2023/10/31 - https://haproxy.org/", "HAProxy 2.0 is installed"),
        ("something else", None),
    ],
)
def test_an_haproxy_that_is_too_old_counts_as_none(
    says: str, refused: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "haproxy"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    why = balancer.why_no_haproxy()
    assert (
        why is None if refused is None else (why or "").startswith(f"{refused}, and 2.4 or newer is needed")
    )


def test_without_haproxy_it_is_said_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancer, "haproxy_program", lambda: None)
    assert "apt-get install haproxy" in (balancer.why_no_haproxy() or "")
