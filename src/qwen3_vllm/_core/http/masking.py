"""What was sent in confidence is hidden wherever a server or a proxy repeats it."""

import json
from collections.abc import Iterable
from urllib.parse import quote


class Mask:
    """Replaces secrets by `***`, as they are, and as JSON and URLs write them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {
            form
            for secret in secrets
            if secret
            for form in (secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""))
        }
        self._secrets = sorted(found, key=len, reverse=True)

    def __call__(self, words: str) -> str:
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words
