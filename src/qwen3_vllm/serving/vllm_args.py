"""The arguments a user sends to vLLM past the launcher, understood as vLLM's own parser does. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.options import ServeOptions

_ALIASES = {
    "--tensor-parallel-size": ("-tp", "-t"),
    "--data-parallel-size": ("-dp",),
    "--api-server-count": ("-asc", "-as"),
    "--quantization": ("-q",),
    "--gpu-memory-utilization": ("--device-memory-utilization",),
    "--nnodes": ("-n",),
    "--data-parallel-address": ("-dpa",),
    "--data-parallel-backend": ("-dpb",),
    "--data-parallel-rank": ("-dpn",),
    "--data-parallel-start-rank": ("-dpr",),
    "--data-parallel-external-lb": ("-dpe",),
    "--data-parallel-hybrid-lb": ("-dph",),
    "--data-parallel-multi-port-external-lb": ("-dpm",),
}
# Given to spread one server over several hosts, or to balance between its copies without vLLM.
_SPREAD = (
    *("--distributed-executor-backend", "--nnodes", "--data-parallel-address", "--data-parallel-backend"),
    *("--data-parallel-rank", "--data-parallel-start-rank", "--data-parallel-external-lb"),
    *("--data-parallel-hybrid-lb", "--data-parallel-multi-port-external-lb"),
)
_OVERRIDES, _SHORTEST_OVERRIDES = "--hf-overrides", "--hf-o"
_UNITS = {unit: 1000**power for power, unit in enumerate("kmgt", start=1)} | {
    unit: 1024**power for power, unit in enumerate("KMGT", start=1)
}


def flag_name(argument: str) -> str:
    """Return the flag in vLLM's canonical spelling: `--hf_overrides.a=1` is `--hf-overrides`."""
    return argument.partition("=")[0].partition(".")[0].replace("_", "-")


def shortens(name: str, flag: str) -> bool:
    """Whether argparse may take `name` for `flag`: any beginning of a long flag stands for it.

    None of vLLM's long flags that this package looks for begins with another flag, so a beginning that fits
    two is one that vLLM refuses. Short flags do begin with each other (-dp, -dpn).
    """
    return name == flag or (len(name) > 2 and name.startswith("--") and flag.startswith(name))


class VllmArgs:
    """What follows `--`: which flags it holds, and `--hf-overrides` taken out to be merged with ours.

    `rest` is everything else, untouched and in order.
    """

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.hf_overrides: dict[str, Any] = {}
        self.rest: list[str] = []
        pending = iter(arguments)
        for argument in pending:
            name = flag_name(argument)
            if name.startswith(_SHORTEST_OVERRIDES) and shortens(name, _OVERRIDES):
                self._read_overrides(argument, pending)
            else:
                self.rest += _apart(argument)

    def has(self, flag: str) -> bool:
        """Whether the user set this flag, or its short or negated form, himself."""
        return self._find(flag) is not None

    def as_given(self, flag: str) -> str | None:
        """Return the flag as the user wrote it, in full or shortened; None where he did not."""
        place = self._find(flag)
        return None if place is None else self.rest[place].partition("=")[0]

    def value(self, flag: str) -> str | None:
        """Return the value of a flag, None where it is not set or has none."""
        place = self._find(flag)
        if place is None:
            return None
        _, equals, inline = self.rest[place].partition("=")
        return inline if equals else next(iter(self.rest[place + 1 : place + 2]), None)

    @property
    def is_spread(self) -> bool:
        """Whether this machine's GPUs and cores are not all that counts."""
        return any(map(self.has, _SPREAD))

    def _find(self, flag: str) -> int | None:
        """Return where the flag stands in `rest`; the last one wins."""
        aliases = (flag, flag.replace("--", "--no-", 1), *_ALIASES.get(flag, ()))
        places = [
            place
            for place, argument in enumerate(self.rest)
            if argument.startswith("-") and any(shortens(flag_name(argument), alias) for alias in aliases)
        ]
        return places[-1] if places else None

    def _read_overrides(self, argument: str, pending: Iterator[str]) -> None:
        key, equals, inline = argument.partition("=")
        text = inline if equals else next(pending, "")
        _, *path = key.split(".")
        if not path:
            self.hf_overrides |= _read_object(text)
            return
        value: Any = text.split(",") if path[-1].endswith("+") else _read_value(text)
        into = self.hf_overrides
        *parents, last = [part.removesuffix("+") for part in path]
        for part in parents:
            into = into.setdefault(part, {})
            if not isinstance(into, dict):
                raise LaunchError(
                    f"{key} sets a field of something that is not an object; look at {_OVERRIDES}"
                )
        before = into.get(last)
        into[last] = [*before, *value] if isinstance(before, list) and isinstance(value, list) else value


def _apart(argument: str) -> list[str]:
    """Return `-qfp8` as `-q fp8`: the value of a flag of one letter may follow at once."""
    glued = re.fullmatch("(-[nq])([^=].*)", argument)
    return list(glued.groups()) if glued else [argument]


def heeding(options: ServeOptions, arguments: VllmArgs) -> ServeOptions:
    """Take over what the user said after `--` about options of ours that other decisions rest on."""
    return replace(
        options,
        quantization=arguments.value("--quantization") or options.quantization,
        tensor_parallel_size=_size(arguments, "--tensor-parallel-size") or options.tensor_parallel_size,
        data_parallel_size=_size(arguments, "--data-parallel-size") or options.data_parallel_size,
        api_server_count=_size(arguments, "--api-server-count") or options.api_server_count,
    )


def _size(arguments: VllmArgs, flag: str) -> int | None:
    text = arguments.value(flag) or ""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _read_object(text: str) -> dict[str, Any]:
    try:
        overrides = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LaunchError(f"--hf-overrides is not JSON ({error}): {text!r}") from error
    if not isinstance(overrides, dict):
        raise LaunchError(f"--hf-overrides must be a JSON object, not {text!r}")
    return overrides


def _read_value(text: str) -> Any:
    """Read one field as vLLM does: JSON, else a number such as 1k (1000) or 1K (1024), else text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        with_unit = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)([kKmMgGtT])", text.strip())
        return int(float(with_unit[1]) * _UNITS[with_unit[2]]) if with_unit else text
