"""What went wrong with a connection, in words that say what to do, and without what aiohttp knows of it.

aiohttp's exceptions hold the request's headers, keys included: none of them is chained.
"""

import aiohttp

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.proxies import Proxy

_PROXY_WANTS_PASSWORD = 407


def disconnection(
    error: Exception,
    url: str,
    *,
    timeout: aiohttp.ClientTimeout,
    start_command: str,
    proxy: Proxy | None,
) -> errors.Qwen3VLLMError:
    """Make our own error of one of aiohttp's."""
    by = proxy.option if proxy else ""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return errors.RequestTimeoutError(f"could not connect to {url} within {timeout.sock_connect:g} s")
        case TimeoutError():
            return errors.RequestTimeoutError(f"{url} sent no complete response within {timeout.total:g} s")
        case aiohttp.ClientSSLError():
            return errors.ServerUnreachableError(
                f"No TLS connection to {url}: {error}. If a private authority signed its certificate, "
                "pass the authority's file as verify, or set SSL_CERT_FILE",
                "tls",
            )
        case aiohttp.ClientProxyConnectionError():
            return errors.ServerUnreachableError(
                f"Cannot connect to the proxy {error.host}:{error.port}, which {by} sets for {url}"
            )
        case aiohttp.ClientHttpProxyError():
            advice = f": check the user and password in {by}" if error.status == 407 else ""
            return errors.ServerUnreachableError(
                f"The proxy that {by} sets refused to connect to {url}: {error.status} "
                f"{_one_line(error.message)}{advice}",
                "connect" if error.status >= 500 or error.status == 429 else "proxy",
            )
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or str(error.os_error) or "closed while connecting"
            return errors.ServerUnreachableError(
                f"Cannot connect to {url} ({reason}). If no server runs there, start one: {start_command}"
            )
        case aiohttp.ClientResponseError():
            return errors.ServerUnreachableError(
                f"The connection to {url} broke: {_one_line(error.message)}", "lost"
            )
        case _:
            return errors.ServerUnreachableError(
                f"The connection to {url} broke: {error or type(error).__name__}", "lost"
            )


def through_proxy(
    error: errors.ServerError | errors.InvalidAnswerError, proxy: Proxy
) -> errors.Qwen3VLLMError:
    """Say of what came through a proxy that it may be the proxy's own."""
    if isinstance(error, errors.ServerError) and error.status == _PROXY_WANTS_PASSWORD:
        return errors.ServerUnreachableError(
            f"The proxy {proxy.address} refused: {error}: check the user and password in {proxy.option}",
            "proxy",
        )
    error.args = (
        f"{error} It came through the proxy {proxy.address}, which {proxy.option} sets and which may have "
        "answered itself: proxy=False goes without it",
        *error.args[1:],
    )
    return error


def _one_line(words: str) -> str:
    return " ".join(words.split())
