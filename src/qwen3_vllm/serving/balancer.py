"""The balancer that makes several servers of one model one address."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from qwen3_vllm._core.loopback import is_loopback
from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.command.haproxy import haproxy_config
from qwen3_vllm.serving.machine.ports import check_port, free_port
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.plan import Plan
from qwen3_vllm.serving.process.server import Server

Balancer = Literal["haproxy", "vllm-router", "none"]
_NO_HAPROXY = "HAProxy is not installed (Debian, Ubuntu: apt-get install haproxy)"
_OLDEST_HAPROXY = (2, 4)


def haproxy_program() -> str | None:
    """Find HAProxy; Debian has it where a user without rights does not look."""
    return shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")


def why_no_haproxy() -> str | None:
    """Say why HAProxy cannot stand in front on this machine; None when it can."""
    program = haproxy_program()
    if program is None:
        return _NO_HAPROXY
    version = _version_of(program)
    if version is not None and version < _OLDEST_HAPROXY:
        return "HAProxy {}.{} is installed, and {}.{} or newer is needed".format(*version, *_OLDEST_HAPROXY)
    return None


def _version_of(program: str) -> tuple[int, int] | None:
    """Ask HAProxy for its version; None where it does not say."""
    try:
        shown = subprocess.run(
            [program, "-v"], capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version (\d+)\.(\d+)", shown)
    return (int(found[1]), int(found[2])) if found else None


def router_program() -> Path | None:
    """Find vllm-router beside this Python."""
    program = Path(sys.executable).with_name("vllm-router")
    return program if program.exists() else None


def choose_balancer(
    plan: Plan, asked: Balancer | Literal["auto"] = "auto", *, elsewhere: bool = False
) -> tuple[Balancer, str | None]:
    """Return the balancer for servers of a plan; or why there can be no balancer.

    Args:
        elsewhere: The plan is for another machine, which has the balancer that is asked for.

    Raises:
        LaunchError: The one asked for cannot be had.
    """
    if asked == "none":
        return "none", "--balancer none leaves it out"
    there = elsewhere and asked != "auto"
    no_haproxy = None if there else why_no_haproxy()
    if plan.vllm_args.has("--ssl-certfile"):
        no_haproxy = "the balancer is started without TLS; put one in front that has your certificate"
    no_router = no_haproxy if plan.vllm_args.has("--ssl-certfile") else _why_no_router(plan, there=there)
    if asked != "auto":
        obstacle = no_haproxy if asked == "haproxy" else no_router
        if obstacle is not None:
            raise LaunchError(f"--balancer {asked}: {obstacle}")
        return asked, None
    if no_haproxy is None:
        return "haproxy", None
    return ("vllm-router", None) if no_router is None else ("none", no_haproxy)


def _why_no_router(plan: Plan, *, there: bool) -> str | None:
    """Say why vllm-router cannot stand in front; None when it can.

    vllm-router (seen with 0.1.17) forwards the key to /v1/embeddings but not to /v1/score, and lets anybody
    add and remove workers: it fits servers without a key, on the loopback address.
    """
    if plan.options.guarded:
        return "vllm-router does not pass the API key on to every route"
    if not is_loopback(plan.options.host):
        return "vllm-router lets anybody who reaches it add and remove servers"
    if not there and router_program() is None:
        return "vllm-router is not installed (pip install vllm-router)"
    return None


def balancer_config(plan: Plan, replicas: Sequence[Plan]) -> str:
    """Write HAProxy's configuration before the replicas of a plan."""
    options = plan.options
    servers = [f"{each.options.host}:{each.options.served_port}" for each in replicas]
    return haproxy_config(options.role, options.host, options.served_port, servers)


def router_command(plan: Plan, replicas: Sequence[Plan]) -> Command:
    """Build the command of vllm-router before the replicas of a plan."""
    options = plan.options
    argv = (
        *(str(router_program() or "vllm-router"), "--host", options.host, "--port", str(options.served_port)),
        *("--policy", "round_robin", "--prometheus-port", str(free_port())),
        *("--worker-urls", *(each.base_url for each in replicas)),
    )
    return Command(argv, {}, after_others=True)


def make_balancer(kind: Balancer, plan: Plan, replicas: Sequence[Plan], log_path: Path) -> Server:
    """Make the balancer, which listens where a single server would.

    It starts when the servers answer: one that boots accepts a health check and leaves it waiting.

    HAProxy's configuration lies beside its log.

    Raises:
        LaunchError: The port is taken, or the configuration cannot be written or is refused.
    """
    options = plan.options
    check_port(options.host, options.served_port)
    if kind == "haproxy":
        config = log_path.with_suffix(".haproxy.cfg")
        _write_checked(config, balancer_config(plan, replicas))
        command = Command((str(haproxy_program()), "-db", "-f", str(config)), {}, after_others=True)
    else:
        command = router_command(plan, replicas)
    key = plan.keys[0] if plan.keys else None
    return Server(f"{options.role} ({kind})", command, plan.base_url, log_path, api_key=key)


def _write_checked(config: Path, text: str) -> None:
    """Write the configuration, and have HAProxy read it before servers boot for minutes."""
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"cannot write {config}: {error}") from error
    checked = subprocess.run(
        [str(haproxy_program()), "-c", "-q", "-f", str(config)], capture_output=True, text=True, check=False
    )
    if checked.returncode:
        raise LaunchError(f"HAProxy refuses {config}:\n{checked.stderr.strip()}")
