"""The ports of this machine: which are free, which are taken."""

import errno
import socket
from contextlib import ExitStack

from qwen3_vllm.errors import LaunchError

# Those of one server, of both, and of those that people start beside them.
WELL_KNOWN = range(8000, 8011)


def free_port() -> int:
    """Ask the system for a port of the loopback address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int) -> list[int]:
    """Ask the system for different ports of the loopback address, none where people expect a server."""
    found: list[int] = []
    with ExitStack() as probes:
        while len(found) < count:
            port = probes.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            if port not in WELL_KNOWN:
                found.append(port)
    return found


def is_port_taken(host: str, port: int) -> bool:
    """Whether something listens there already. vLLM itself would share the port and say nothing.

    Raises:
        LaunchError: No server could listen there for another reason.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except PermissionError as error:
        raise LaunchError(f"port {port} needs administrator rights; use one above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        raise LaunchError(f"cannot listen on {host}:{port}: {error}") from error
    return False


def check_port(host: str, port: int) -> None:
    """See that a server could listen there.

    Raises:
        LaunchError: It could not; the message names a free port.
    """
    if is_port_taken(host, port):
        raise LaunchError(f"something already listens on {host}:{port}; stop it, or use --port {free_port()}")
