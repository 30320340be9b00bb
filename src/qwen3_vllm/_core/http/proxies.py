"""The environment's proxy, with its password kept apart from its address."""

import base64
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from qwen3_vllm import errors


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
        address: Without user and password: it may be shown.
        headers: What proves who the user is.
        secrets: What must not be shown.
    """

    address: URL
    headers: dict[str, str]
    secrets: tuple[str, ...]


def proxy_for(root: str) -> Proxy | None:
    """Look for HTTP_PROXY, HTTPS_PROXY and NO_PROXY once.

    aiohttp's `trust_env` does so for each request, in two threads (0.4 ms of CPU), and where ~/.netrc knows
    the host it refuses to send our key.

    Raises:
        ConfigurationError: The variable holds no URL.
    """
    parts = urlsplit(root)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxy = getproxies().get(parts.scheme, "")
    if not proxy.startswith("http://"):  # aiohttp speaks to no others
        return None
    try:
        url = URL(proxy)
        valid = url.host is not None
    except ValueError:
        valid = False
    if not valid:
        raise errors.ConfigurationError(
            f"{parts.scheme.upper()}_PROXY of the environment is not a valid URL: write special characters "
            "of its password percent-encoded"
        )
    if url.user is None and url.password is None:
        return Proxy(url, {}, ())
    password = url.password or ""
    hidden = password or url.user or ""  # a user without a password may be a token
    encoded = base64.b64encode(f"{url.user or ''}:{password}".encode()).decode()
    return Proxy(url.with_user(None), {"Proxy-Authorization": f"Basic {encoded}"}, (hidden, encoded))
