"""Which ports count as free."""

import socket

import pytest

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.machine import ports as ports_module
from qwen3_vllm.serving.machine.ports import check_port, free_port, free_ports, is_port_taken


def test_a_taken_port_is_seen_and_another_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert is_port_taken("127.0.0.1", port)
        with pytest.raises(LaunchError, match=rf"127\.0\.0\.1:{port}; stop it, or use --port \d+"):
            check_port("127.0.0.1", port)


def test_a_port_that_vllm_would_share_counts_as_taken() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        assert is_port_taken("127.0.0.1", taken.getsockname()[1])


def test_a_free_port_is_free() -> None:
    assert not is_port_taken("127.0.0.1", free_port())


def test_inner_ports_are_different_and_not_those_that_linux_gives_to_connections() -> None:
    ports = [*free_ports(40), *free_ports(40)]
    assert len(set(ports)) == 80
    assert all(20_000 <= port < 30_000 for port in ports)
    assert not any(is_port_taken("127.0.0.1", port) for port in ports)


def test_more_servers_than_ports_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two = free_ports(2)
    monkeypatch.setattr(ports_module, "_unusual_ports", lambda: iter(two))
    with pytest.raises(LaunchError, match="3 servers need a port each, and of 20000 to 29999 2 are free"):
        ports_module.free_ports(3)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", free_port())
