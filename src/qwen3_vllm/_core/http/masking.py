"""What was sent in confidence is hidden wherever a server or a proxy repeats it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from urllib.parse import quote

_SHORTEST_SECRET = 8  # characters; masking shorter values of headers would garble messages


class Mask:
    """Replaces secrets by `***`, as they are, and as JSON, URLs, HTML and Python write them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets if secret for form in _forms(secret)}
        self._secrets = sorted(found, key=len, reverse=True)

    def __call__(self, words: str) -> str:
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield quote(secret)
    yield quote(secret, safe="")
    yield escape(secret)
    yield repr(secret.encode())[2:-1]


def secrets_of(headers: Mapping[str, str]) -> Iterator[str]:
    """Values of headers that are long enough to be secret, with and without a word like Bearer."""
    for value in headers.values():
        for part in (value, value.rpartition(" ")[2]):
            if len(part) >= _SHORTEST_SECRET:
                yield part
