"""The arguments a user sends to vLLM past the launcher, looked at but not rewritten. Pure."""

from __future__ import annotations

import json
from typing import Any

from .errors import LaunchError


def flag_name(argument: str) -> str:
    """Return the flag in vLLM's canonical spelling: `--hf_overrides={}` is `--hf-overrides`."""
    return argument.partition("=")[0].replace("_", "-")


class ExtraArgs:
    """What follows `--`: which flags it holds, and `--hf-overrides` taken out to be merged with ours.

    `rest` is everything else, untouched and in order.
    """

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.hf_overrides: dict[str, Any] = {}
        self.rest: list[str] = []
        pending = iter(arguments)
        for argument in pending:
            if argument.startswith("--") and flag_name(argument) == "--hf-overrides":
                inline = argument.partition("=")[2]
                self.hf_overrides |= _read_overrides(inline or next(pending, ""))
            else:
                self.rest.append(argument)
        self.flags = {flag_name(argument) for argument in self.rest if argument.startswith("-")}

    def has(self, flag: str) -> bool:
        """Whether the user set this flag, or its short or negated form, himself."""
        aliases = {flag, flag.replace("--", "--no-", 1), *_SHORT.get(flag, ())}
        return bool(aliases & self.flags)


_SHORT = {
    "--tensor-parallel-size": ("-tp",),
    "--data-parallel-size": ("-dp",),
    "--api-server-count": ("-asc",),
    "--quantization": ("-q",),
}


def _read_overrides(text: str) -> dict[str, Any]:
    try:
        overrides = json.loads(text)
    except ValueError as error:
        raise LaunchError(f"--hf-overrides is not JSON ({error}): {text!r}") from error
    if not isinstance(overrides, dict):
        raise LaunchError(f"--hf-overrides must be a JSON object, not {text!r}")
    return overrides
