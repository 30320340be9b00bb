"""Which addresses only this machine can reach."""

import pytest

from qwen3_vllm._core.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])
def test_public_addresses(host: str) -> None:
    assert not is_loopback(host)
