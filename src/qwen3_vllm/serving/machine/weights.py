"""See that a model folder's weights and tokenizer are whole, from file sizes, headers and JSON alone."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen3_vllm.errors import LaunchError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "*.tiktoken")


def check_weights(folder: Path) -> None:
    """See that the weights are there and none is cut short.

    Raises:
        LaunchError: A file is missing or broken; half a download looks like this.
    """
    files = sorted(folder.glob("*.safetensors"))
    others = [*folder.glob("*.bin"), *folder.glob("*.pt")]
    if not files and not others:
        if any(folder.glob("*.gguf")):
            raise LaunchError(
                f"{folder} has its weights as GGUF, which vLLM reads with vllm-gguf-plugin only, and from "
                "the file, not the folder; download the model as safetensors"
            )
        raise LaunchError(f"{folder} has a config.json but no weights; download the model again")
    for file in [*files, *others]:
        check_is_file(file)
    for index in folder.glob("*.index.json"):
        kind = Path(index.name.removesuffix(".index.json")).suffix
        missing = _listed(index) - {file.name for file in [*files, *others]}
        if missing and (kind == ".safetensors" or not files):
            raise LaunchError(f"{folder} lacks {', '.join(sorted(missing))}; download the model again")
    for file in files:
        expected = _whole_size(_header(file))
        if expected != (found := file.stat().st_size):
            raise LaunchError(
                f"{file} is damaged: {found} bytes, and its header "
                f"{f'says {expected}' if expected else 'cannot be read'}; download the model again"
            )


def check_tokenizer(folder: Path) -> None:
    """See that there is a tokenizer, and that its files are JSON objects.

    Raises:
        LaunchError: There is none, or a file is damaged.
    """
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise LaunchError(f"{folder} has no tokenizer.json; download the model again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        read_json(folder / name)


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the object in a file, None where there is no file.

    Raises:
        LaunchError: The file is something else; the message names it.
    """
    if not os.path.lexists(file):
        return None
    check_is_file(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise LaunchError(f"cannot read {file}: nested too deeply; download the model again") from error
    except (OSError, ValueError) as error:
        raise LaunchError(f"cannot read {file}: {error}; download the model again") from error
    if not isinstance(content, dict):
        raise LaunchError(f"{file} is damaged: not a JSON object; download the model again")
    return content


def check_is_file(file: Path) -> None:
    """See that a name in a folder leads to a file.

    Raises:
        LaunchError: It is a folder, a device, or a link to nothing, as a pruned cache leaves them.
    """
    try:
        if file.is_file():
            return
        is_link = file.is_symlink()
    except OSError as error:
        raise LaunchError(f"cannot read {file}: {error}") from error
    if is_link:
        raise LaunchError(
            f"{file} is a link to {file.readlink()}, and no file is there; download the model again"
        )
    raise LaunchError(f"{file} is not a file; remove it, and download the model again")


def tensor_types(folder: Path) -> dict[str, str]:
    """Return the tensors of the safetensors files, name to type; those of a damaged file are left out."""
    headers = [_header(file) for file in sorted(folder.glob("*.safetensors")) if file.is_file()]
    return {
        name: str(entry.get("dtype"))
        for header in headers
        for name, entry in (header or (0, {}))[1].items()
        if isinstance(entry, dict) and name != "__metadata__"
    }


def _listed(index: Path) -> set[str]:
    try:
        weight_map = (read_json(index) or {}).get("weight_map")
    except LaunchError as error:
        raise LaunchError(f"{index.name} is damaged: {error}") from error
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise LaunchError(f"{index} is damaged: its weight_map names no files; download the model again")
    return set(weight_map.values())


def _header(file: Path) -> tuple[int, dict[str, Any]] | None:
    """Return where the tensors start in a safetensors file, and its header: None if it cannot be read."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= _MAX_HEADER_BYTES:
                return None
            header = json.loads(stream.read(length))
    except (ValueError, RecursionError):
        return None
    except OSError as error:
        raise LaunchError(f"cannot read {file}: {error}") from error
    return (8 + length, header) if isinstance(header, dict) else None


def _whole_size(header: tuple[int, dict[str, Any]] | None) -> int | None:
    """Return the size that a safetensors file says it has, None where its tensors do not lie end to end."""
    if header is None:
        return None
    start, entries = header
    place = 0
    try:
        for first, last in sorted(_offsets(entries)):
            if first != place or last < first:
                return None
            place = last
    except (KeyError, TypeError, ValueError):
        return None
    return start + place


def _offsets(entries: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for name, entry in entries.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            if type(first) is not int or type(last) is not int:
                raise TypeError(name)
            yield first, last
