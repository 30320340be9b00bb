"""The ports of this machine: which are free, which are taken."""

import errno
import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import islice

from qwen3_vllm.errors import LaunchError

# Where people expect no server, as on 8000 to 8010, and where Linux puts no connection: one made
# while vLLM is imported would take the port that vLLM then opens.
_UNUSUAL = range(20_000, 30_000)


def free_port() -> int:
    """Ask the system for a port of the loopback address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int) -> list[int]:
    """Find unusual ports of the loopback address that nothing listens on; none is given twice.

    Raises:
        LaunchError: There are not so many.
    """
    free = (port for port in _unusual_ports() if not is_port_taken("127.0.0.1", port))
    found = list(islice(free, count))
    if len(found) < count:
        raise LaunchError(
            f"{count} servers need a port each, and of {_UNUSUAL[0]} to {_UNUSUAL[-1]} {len(found)} are free"
        )
    return found


@cache
def _unusual_ports() -> Iterator[int]:
    return iter(random.sample(_UNUSUAL, len(_UNUSUAL)))


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
