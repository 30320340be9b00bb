"""The file behind vLLM's `--config`, read so that nothing in it escapes the checks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen3_vllm.errors import LaunchError

# Flags of vLLM without a --no- form; vLLM drops them where a file says false.
_NEVER_NEGATED = frozenset({"headless", "grpc", "disable-log-stats", "aggregate-engine-logging"})


def with_config_file(arguments: tuple[str, ...], *, elsewhere: bool = False) -> tuple[str, ...]:
    """Put the settings of `--config FILE` before the other arguments, where vLLM puts them too.

    Other flags then win over the file, and the file over what this package would send. `elsewhere`: the
    command is for another machine, so a file that is not here is left to vLLM.

    Raises:
        LaunchError: The file cannot be read, or is not what vLLM takes.
    """
    if "--config" not in arguments:
        return arguments
    place = arguments.index("--config")
    before, name, after = arguments[:place], arguments[place + 1 : place + 2], arguments[place + 2 :]
    if not name or "--config" in after:
        raise LaunchError("--config after -- takes one YAML file, and may be given only once")
    file = Path(name[0])
    if elsewhere and not file.exists():
        return arguments
    return (*_arguments(file, _settings(file)), *before, *after)


def _settings(file: Path) -> dict[Any, Any]:
    if file.suffix not in (".yaml", ".yml"):
        raise LaunchError(f"--config {file}: vLLM takes files that end in .yaml or .yml only")
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise LaunchError(f"reading --config {file} needs PyYAML: pip install pyyaml") from error
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LaunchError(f"cannot read --config {file}: {error}") from error
    if not isinstance(settings, dict):
        raise LaunchError(f"--config {file} must hold `flag: value` lines, such as `seed: 1`")
    return settings


def _arguments(file: Path, settings: dict[Any, Any]) -> Iterator[str]:
    for key, value in settings.items():
        if not isinstance(key, str):
            raise LaunchError(f"--config {file}: {key!r} is not the name of a flag")
        name, dot, field = key.partition(".")
        flag = f"--{name.replace('_', '-')}{dot}{field}"
        if flag == "--config":  # put before the other arguments, it would have vLLM read a file unchecked
            raise LaunchError(f"--config {file}: it cannot name another file; put those settings into it")
        match value:
            case True:
                yield flag
            case False:
                if flag[2:] not in _NEVER_NEGATED:
                    yield flag.replace("--", "--no-", 1)
            case []:
                pass
            case list():
                yield from (flag, *map(str, value))
            case dict():
                yield from (flag, _as_json(file, value))
            case _:
                yield from (flag, str(value))


def _as_json(file: Path, value: dict[Any, Any]) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise LaunchError(f"--config {file}: {error}") from error
