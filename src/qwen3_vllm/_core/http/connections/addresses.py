"""Where a server's API may be, by the address that a user gave."""

import re
from urllib.parse import urlsplit

# What people paste after the address.
_ROUTE = re.compile(
    r"/(?:embeddings|embed|score|rerank|classify|pooling|tokenize|detokenize|models|health|version|metrics"
    r"|completions|chat/completions)$"
)


def places_of(base_url: str) -> tuple[str, ...]:
    """Give the addresses to try, in order: each stands for what is `…/v1` of vLLM.

    As given, and then with `/v1`; of a bare host `/v1` comes first, as vLLM has it. A pasted endpoint is
    tried first; its last part may also be the prefix of a gateway, and where it is Cohere's, as `/v2/rerank`,
    vLLM has the others beside it under `/v1`.
    """
    url = base_url.rstrip("/")
    endpoint = _ROUTE.sub("", url)
    if endpoint != url:
        beside = re.sub(r"/v2$", "/v1", endpoint)
        return tuple(dict.fromkeys((*_with_version(endpoint), beside, url + "/v1")))
    return _with_version(url)


def _with_version(url: str) -> tuple[str, ...]:
    if url.endswith("/v1"):
        return (url,)
    if not urlsplit(url).path:
        return (url + "/v1", url)
    return (url, url + "/v1")


def root_of(address: str) -> str:
    """Where the routes are that have no `/v1`, like /tokenize."""
    return address.removesuffix("/v1")
