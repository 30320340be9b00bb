"""The proxy of a server, with its password kept apart from its address."""

import base64
import ipaddress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr
from yarl import URL

from qwen3_vllm import errors

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
        address: Without user and password: it may be shown.
        headers: What proves who the user is.
        secrets: What must not be shown.
        option: What sets it.
    """

    address: URL
    headers: dict[str, str]
    secrets: tuple[str, ...]
    option: str


def proxy_for(root: str, chosen: SecretStr | Literal[False] | None = None) -> Proxy | None:
    """Take the proxy that the user chose, or else look for HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    aiohttp's `trust_env` does so for each request, in two threads (0.4 ms of CPU), and where ~/.netrc knows
    the host it refuses to send our key.

    Args:
        chosen: A proxy's URL, or False for none; None leaves it to the environment.

    Raises:
        ConfigurationError: It is not a valid URL, or of a kind that cannot be used.
    """
    if chosen is False:
        return None
    if chosen is not None:
        return _proxy(chosen.get_secret_value(), "proxy")
    parts = urlsplit(root)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    found = getproxies()
    scheme = parts.scheme if found.get(parts.scheme) else "all"
    address = found.get(scheme, "")
    if not address or proxy_bypass(host) or is_exempt(host, port, found.get("no", "")):
        return None
    return _proxy(address, f"{scheme.upper()}_PROXY of the environment")


def is_exempt(host: str, port: int, exempt: str) -> bool:
    """Whether NO_PROXY names a server: by name, suffix, address, network or pattern, and port."""
    return any(
        _matches(host.lower(), port, each.strip().lower()) for each in exempt.split(",") if each.strip()
    )


def _matches(host: str, port: int, pattern: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    except (ValueError, TypeError):
        pass  # one of them is a name
    name, colon, number = pattern.rpartition(":")
    if colon and number.isdigit() and (name.endswith("]") or ":" not in name):
        if int(number) != port:
            return False
        pattern = name
    pattern = pattern.strip("[]")
    if "*" in pattern:
        return fnmatchcase(host, pattern)
    suffix = pattern.lstrip(".")
    return host == suffix or host.endswith("." + suffix)


def _proxy(address: str, option: str) -> Proxy:
    kind, separator, _ = address.partition("://")
    if not separator:
        address = "http://" + address  # as curl reads it
    elif kind.lower() != "http":
        raise errors.ConfigurationError(
            f"{option} is of the kind {kind}://, which cannot be used: name an HTTP one, http://host:port, "
            "or pass proxy=False, or add the server to NO_PROXY, to go without one"
        )
    try:
        url = URL(address)
        valid = url.host is not None and url.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise errors.ConfigurationError(
            f"{option} is not a valid URL: write special characters of its password percent-encoded"
        )
    if url.user is None and url.password is None:
        return Proxy(url, {}, (), option)
    password = url.password or ""
    hidden = password or url.user or ""  # a user without a password may be a token
    encoded = base64.b64encode(f"{url.user or ''}:{password}".encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {encoded}"}
    return Proxy(url.with_user(None), headers, (hidden, encoded), option)
