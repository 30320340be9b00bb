"""What options of a client may be: each check returns the value as it is kept, or raises ValueError."""

import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr

AskKey: TypeAlias = Callable[[], str | SecretStr | Awaitable[str | SecretStr]]

_SCHEME = re.compile(r"(?:bearer(?:\s+|$))*", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What a client itself says in a request: `extra_body` cannot.
_OWN_FIELDS = frozenset({
    "dimensions", "documents", "embed_dtype", "encoding_format", "endianness", "input", "instruction",
    "model", "query", "text_1", "text_2", "top_n", "truncate_prompt_tokens",
})  # fmt: skip


def checked_base_url(given: object) -> object:
    """One address as a string, several as a tuple of them, each server once; a string may name several."""
    lines = [given] if isinstance(given, str) else given
    if not isinstance(lines, Sequence) or not all(isinstance(line, str) for line in lines):
        raise ValueError("base_url must be an address, or a list of them")
    urls = [url for line in lines for word in line.split(",") if (url := word.strip())] or [""]
    servers: dict[object, str] = {}
    for place, url in enumerate(urls, 1):
        try:
            address = _checked_address(url)
        except ValueError as error:
            which = f"address {place} of {len(urls)}: " if len(urls) > 1 else ""
            raise ValueError(f"{which}{error}") from None
        servers.setdefault(_server_of(address), address)
    first, *others = servers.values()
    return (first, *others) if others else first


def _server_of(address: str) -> object:
    """What two ways to write the address of one server have in common."""
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, parts.hostname, port, parts.path.removesuffix("/v1")


def frozen(value: str | Sequence[str]) -> str | tuple[str, ...]:
    """A string as it is, several as a tuple."""
    return value if isinstance(value, str) else tuple(value)


def _checked_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        valid = parts.scheme in ("http", "https") and _names_host(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("base_url must look like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "base_url must hold no user, password, query or fragment: it appears in errors and logs; "
            "pass credentials as api_key or default_headers"
        )
    return url.rstrip("/")


def _names_host(hostname: str | None) -> bool:
    """Whether a hostname, or an IPv6 address, has no empty part and no space."""
    if not hostname or re.search(r"\s", hostname):
        return False
    return ":" in hostname or all(hostname.removesuffix(".").split("."))


def key_or_function(key: object) -> object:
    if not isinstance(key, str | SecretStr | None) and not callable(key):
        raise ValueError("api_key must be a string, or a function that returns one")
    return key


def checked_key(key: SecretStr | AskKey | None) -> SecretStr | AskKey | None:
    if key is None or not isinstance(key, SecretStr):
        return key
    bare = bare_key(key.get_secret_value())
    if not bare.strip():
        return SecretStr("")  # None would be the environment's, in a copy too
    if not is_sendable(bare):
        raise ValueError("api_key must be printable ASCII")
    return SecretStr(bare)


def bare_key(key: str) -> str:
    """The key itself, where it was given with its scheme: `Bearer sk…`."""
    return _SCHEME.sub("", key.strip(" "), count=1)


def is_sendable(key: str) -> bool:
    """Whether a bare key can stand in an HTTP header."""
    return bool(key.strip()) and key.isascii() and key.isprintable()


def checked_headers(headers: dict[str, str] | None) -> dict[str, str] | None:
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise ValueError("default_headers must have names of HTTP headers, and values of one line")
    return headers


def checked_verify(verify: object) -> object:
    if (not verify and verify is not False) or not isinstance(verify, bool | str | Path | ssl.SSLContext):
        raise ValueError("verify must be True, False, the path of a file of authorities, or an SSLContext")
    return written_path(verify)


def checked_cert(cert: object) -> object:
    if cert is None:
        return None
    files = tuple(map(written_path, cert)) if isinstance(cert, tuple | list) else (written_path(cert),)
    if not all(isinstance(file, str) and file for file in files) or len(files) not in (1, 2):
        raise ValueError("cert must be the path of a PEM file, or two: of the certificate and of its key")
    return files[0] if len(files) == 1 else files


def written_path(value: object) -> object:
    """A Path as a string; anything else as it is."""
    return str(value.expanduser()) if isinstance(value, Path) else value


def checked_proxy(proxy: object) -> object:
    if proxy is not None and proxy is not False and not isinstance(proxy, str | SecretStr):
        raise ValueError("proxy must be a URL, or False for none")
    return False if proxy == "" else proxy


def checked_extra_body(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    own = sorted(_OWN_FIELDS.intersection(fields or ()))
    if own:
        raise ValueError(f"extra_body must leave {', '.join(own)} to the client")
    try:
        orjson.dumps(fields)
    except TypeError:
        raise ValueError("extra_body must hold what JSON can write") from None
    return fields


def checked_instruction(instruction: str) -> str:
    """Of a reranker; an embedding may have none."""
    if not instruction.strip():
        raise ValueError("the reranker's prompt needs an instruction; leave it out for Qwen's own")
    return instruction
