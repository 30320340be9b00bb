"""Which proxy a server is reached through."""

import pytest

from qwen3_vllm import EmbeddingClient, errors
from qwen3_vllm._core.http.connections.proxies import is_exempt, proxy_for


@pytest.fixture(autouse=True)
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "")


@pytest.mark.parametrize(
    ("exempt", "host", "port", "expected"),
    [
        ("gpu.example.com", "gpu.example.com", 80, True),
        ("example.com", "gpu.example.com", 80, True),
        (".example.com", "gpu.example.com", 80, True),
        (".example.com", "example.com", 80, True),
        ("example.com", "badexample.com", 80, False),
        ("EXAMPLE.com", "gpu.Example.COM", 80, True),
        ("gpu:8000", "gpu", 8000, True),
        ("gpu:8000", "gpu", 8001, False),
        ("10.0.0.0/8", "10.20.30.40", 80, True),
        ("10.0.0.0/8", "11.20.30.40", 80, False),
        ("127.0.0.*", "127.0.0.1", 8000, True),
        ("127.0.0.*", "127.0.1.1", 8000, False),
        ("*.internal", "a.b.internal", 80, True),
        ("127.0.0.1:8000", "127.0.0.1", 8000, True),
        ("::1", "::1", 8000, True),
        ("[::1]:8000", "::1", 8000, True),
        ("[::1]:8000", "::1", 8001, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("*", "anything", 80, True),
        (" a , b ", "b", 80, True),
        (",,", "b", 80, False),
    ],
)
def test_no_proxy_names_servers_in_many_ways(exempt: str, host: str, port: int, expected: bool) -> None:
    assert is_exempt(host, port, exempt) is expected


def test_a_server_named_with_its_port_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1:8000")
    assert proxy_for("http://127.0.0.1:8000") is None
    assert proxy_for("http://127.0.0.1:8001") is not None


def test_a_bare_address_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "user:hush@proxy:3128")
    found = proxy_for("http://gpu")
    assert found is not None
    assert str(found.address) == "http://proxy:3128"
    assert "hush" in found.secrets


def test_all_proxy_stands_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("all_proxy", "http://other:1")
    found = proxy_for("http://gpu")
    assert found is not None
    assert str(found.address) == "http://other:1"


@pytest.mark.parametrize("kind", ["socks5", "socks5h", "https"])
def test_a_proxy_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    address = f"{kind}://user:hush@proxy:1080"
    monkeypatch.setenv("http_proxy", address)
    with pytest.raises(errors.ConfigurationError, match=f"HTTP_PROXY .*{kind}://.*proxy=False") as caught:
        EmbeddingClient(base_url="http://gpu")
    assert "hush" not in str(caught.value)
    with pytest.raises(errors.ConfigurationError, match=f"proxy is of the kind {kind}"):
        EmbeddingClient(base_url="http://gpu", proxy=address)
    EmbeddingClient(base_url="http://gpu", proxy=False)


@pytest.mark.parametrize("none", [False, ""])
def test_the_environment_can_be_overruled(none: bool | str) -> None:
    assert EmbeddingClient(base_url="http://gpu", proxy=none).settings.proxy is False
    assert proxy_for("http://gpu", False) is None
