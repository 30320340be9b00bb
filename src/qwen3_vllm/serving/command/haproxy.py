"""The configuration of HAProxy before several servers of one model. Pure."""

from collections.abc import Sequence

from qwen3_vllm._core.official_models import Role
from qwen3_vllm._core.priority import BULK, PRIORITY_HEADER

# The longest of 3,219 Chinese questions is a request of 479 bytes; 32 documents of 128 tokens are 20 KB.
BULK_BYTES = 4096
# From so many servers on, one can be kept for queries without much loss to bulk.
SERVERS_FOR_A_LANE = 3
QUERIES_IN_THE_LANE = 64

_HEAD = """\
# HAProxy before the {role} servers. `qwen3-vllm serve` writes this file at each start.

global
    maxconn 4096
    # Where fewer files may be open: fewer connections, and not a refusal to start.
    no strict-limits
    # One thread carries more than these servers compute, and leaves the cores to them.
    nbthread 1

defaults
    mode http
    # Each request goes to the server with the fewest in flight, whatever connection it came on.
    balance leastconn
    # vLLM closes a connection that was idle for 5 seconds, and a request sent at that moment would be lost:
    # each gets a new connection to its server. Clients keep theirs.
    option http-server-close
    # What a client no longer waits for goes to no server.
    option abortonclose
    # A batch may wait and compute as long as its client is willing to wait.
    timeout client 1h
    timeout server 1h
    timeout http-request 60s
    timeout http-keep-alive 5m
    timeout connect 5s
    timeout check 10s
    # Tried again only where no connection could be made; all else is for the client to decide.
    retries 3
    retry-on conn-failure
    option redispatch 1
    option httpchk
    http-check send meth GET uri /health
    http-check expect status 200
    # One that hangs is down after half a minute; the requests that it has are ended, for clients to repeat.
    default-server inter 2s downinter 1s fall 3 rise 1 on-marked-down shutdown-sessions

frontend {role}
    bind {bind}
    # Each server's /metrics is /metrics/0, /metrics/1, …
    http-request set-var(txn.scraped) path,field(3,/) if {{ path{paths} }}
    http-request set-path /metrics if {{ var(txn.scraped) -m found }}
"""
_LANE = f"""\
    # Bulk: what says so itself, has a body of more than {BULK_BYTES} bytes, or does not tell its length.
    acl bulk req.hdr({PRIORITY_HEADER}) -i {BULK}
    acl bulk req.body_size gt {BULK_BYTES}
    acl tells_its_length req.hdr(Content-Length) -m found
    # Where no other server is up, the one for queries takes it.
    use_backend bulk if bulk {{ nbsrv(bulk) gt 0 }}
    use_backend bulk if METH_POST !tells_its_length {{ nbsrv(bulk) gt 0 }}
"""


def has_lane(role: Role, count: int) -> bool:
    """Whether the first of so many servers gets no bulk."""
    return role == "embedding" and count >= SERVERS_FOR_A_LANE


def haproxy_config(role: Role, host: str, port: int, servers: Sequence[str]) -> str:
    """Write the configuration; `servers` are `address:port`.

    From three embedding servers on, the first gets no bulk, and takes the queries while there is bulk.
    """
    paths = "".join(f" /metrics/{number}" for number in range(len(servers)))
    names = [f"{role}-{number}" for number in range(len(servers))]
    lane = has_lane(role, len(servers))
    config = _HEAD.format(role=role, bind=_bind(host, port), paths=paths)
    config += (_LANE if lane else "") + "    default_backend all\n\nbackend all\n"
    for number, name in enumerate(names):
        config += f"    use-server {name} if {{ var(txn.scraped) -m str {number} }}\n"
    if lane:
        config += (
            "    # While there is bulk, queries have a server of their own, up to "
            f"{QUERIES_IN_THE_LANE} at once.\n"
            f"    use-server {names[0]} if {{ be_conn(bulk) gt 0 }} "
            f"{{ srv_conn({names[0]}) lt {QUERIES_IN_THE_LANE} }}\n"
        )
    for name, server in zip(names, servers, strict=True):
        config += f"    server {name} {server} check\n"
    if lane:
        config += "\nbackend bulk\n"
        for name, server in list(zip(names, servers, strict=True))[1:]:
            config += f"    server {name} {server} track all/{name}\n"
    return config


def _bind(host: str, port: int) -> str:
    """Return the address to listen on; `::` takes IPv4 too, as vLLM's does."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{address} v4v6" if host == "::" else address
