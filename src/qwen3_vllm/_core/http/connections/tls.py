"""Whose certificates to trust, and which one to show.

aiohttp makes its own context when it is imported: what the environment says later would have no effect.
"""

import logging
import os
import ssl
from functools import cache, lru_cache
from pathlib import Path

from qwen3_vllm import errors
from qwen3_vllm._core.settings import Certificate, Verify

logger = logging.getLogger(__name__)

# Files and folders of authorities: OpenSSL reads the first two itself, users of requests set the third.
_OF_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_OF_REQUESTS = "REQUESTS_CA_BUNDLE"


def tls_context(verify: Verify, cert: Certificate | None) -> ssl.SSLContext:
    """Make the context of connections to one server; the same one for the same options.

    Connections are shared among clients by it.

    Raises:
        ConfigurationError: A file is missing, or does not hold what it should.
    """
    if isinstance(verify, ssl.SSLContext):
        if cert is not None:
            raise errors.ConfigurationError(
                "cert and an SSLContext as verify exclude each other: load the certificate into the context"
            )
        return verify
    certificate = (cert, None) if isinstance(cert, str) else cert
    environment = tuple(os.environ.get(name, "") for name in (*_OF_OPENSSL, _OF_REQUESTS))
    return _made(verify if isinstance(verify, bool) else str(verify), certificate, environment)


@lru_cache(maxsize=64)  # making one takes 15 ms: it reads all authorities
def _made(
    verify: bool | str, certificate: tuple[str, str | None] | None, environment: tuple[str, ...]
) -> ssl.SSLContext:
    if isinstance(verify, str):
        context = _trusting(verify, "verify")
    elif verify:
        context = _of_environment(*environment)
    else:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        try:
            # With a password, or OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate[0], certificate[1], password="")
        except (OSError, ValueError) as error:
            raise errors.ConfigurationError(
                f"cert: {certificate[0]!r} cannot be loaded ({error}): pass the path of a PEM file, or those "
                "of the certificate and its key, which must not be encrypted"
            ) from None
    return context


@cache
def warn_of_no_verification(origin: str) -> None:
    """Say once per process what `verify=False` means."""
    logger.warning(
        "verify=False: the identity of %s is not checked. Anyone on the network path can read the key and "
        "the texts, and respond in its place; pass the file of its certificate authority as verify instead",
        origin,
    )


def _of_environment(file: str, folder: str, bundle: str) -> ssl.SSLContext:
    for name, path in zip((*_OF_OPENSSL, _OF_REQUESTS), (file, folder, bundle), strict=True):
        if path and name != "SSL_CERT_DIR" and not Path(path).exists():
            raise errors.ConfigurationError(f"{name} of the environment names {path!r}, which does not exist")
    if bundle and not (file or folder):
        return _trusting(bundle, _OF_REQUESTS)
    context = ssl.create_default_context()
    if bundle:
        _trust(context, bundle, _OF_REQUESTS)
    return context


def _trusting(path: str, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _trust(context, path, name)
    return context


def _trust(context: ssl.SSLContext, path: str, name: str) -> None:
    try:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise errors.ConfigurationError(
            f"{name}: {path!r} cannot be loaded ({error}): it must be a PEM file of certificate authorities, "
            "or a folder of them"
        ) from None
