"""Ids of requests, by which a response that belongs to another request is noticed.

vLLM repeats a request's `X-Request-Id` in the `id` of its response: "embd-" and the id, say.
"""

import itertools
import os
import uuid
from collections.abc import Mapping

from qwen3_vllm import errors

HEADER = "X-Request-Id"

_count = itertools.count()
_process = ""  # begins every id of this process


def _begin() -> None:
    global _process
    _process = uuid.uuid4().hex[:20]


_begin()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


class RequestIds:
    """Makes the ids of requests to one server, and checks those of its responses.

    Some gateways have ids of their own: after the first of these, nothing is checked.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        """`headers`: the user's own; an id among them is sent as it is, and nothing is checked."""
        self.checks = HEADER.lower() not in map(str.lower, headers)

    def fresh(self) -> str:
        return f"{_process}{next(_count):012x}"

    def check(self, url: str, sent: str, received: object) -> None:
        """Raise InvalidAnswerError if `received` is the id of another request of this process."""
        if not self.checks or not isinstance(received, str) or sent in received:
            return
        if _process in received:
            raise errors.InvalidAnswerError(
                f"{url} sent the response to another request: a proxy mixes up responses, or caches them "
                f"(set {HEADER} in default_headers to accept that)",
                "other request",
            )
        self.checks = False
