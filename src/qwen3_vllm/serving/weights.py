"""See that a model folder's weights are whole, from file sizes and headers alone."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import LaunchError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def check_weights(folder: Path) -> None:
    """See that the weights are there and none is cut short.

    Raises:
        LaunchError: A file is missing or broken; half a download looks like this.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")) and not any(folder.glob("*.pt")):
        raise LaunchError(f"{folder} has a config.json but no weights; download the model again")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        missing = _listed(index) - {file.name for file in files}
        if missing:
            raise LaunchError(f"{folder} lacks {', '.join(sorted(missing))}; download the model again")
    for file in files:
        if (expected := _whole_size(file)) != (found := file.stat().st_size):
            raise LaunchError(
                f"{file} is damaged: {found} bytes, and its header "
                f"{f'says {expected}' if expected else 'cannot be read'}; download the model again"
            )


def _listed(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError) as error:
        raise LaunchError(f"{index} is damaged; download the model again") from error


def _whole_size(file: Path) -> int | None:
    """Return the size that a safetensors file says it has: 8 bytes, the header, and the last tensor's end."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= _MAX_HEADER_BYTES:
            return None
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
    return 8 + length + max(ends, default=0)
