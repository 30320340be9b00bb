"""Names for caches of vectors: one name, one kind of vector. Pure."""

import hashlib
import json
import re
from typing import Literal, get_args

from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm.errors import ConfigurationError

CacheRole = Literal["query", "document"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_MODEL = 64


def cache_namespace(
    role: CacheRole, model: str, root: str | None, instruction: str, settings: EmbeddingSettings
) -> str:
    """Name the vectors that may stand for each other: letters, digits, `_`, `.` and `-`, under 100 of them.

    Args:
        root: The checkpoint that the server names beside `model`; servers of different sizes often share one
            model name.
        instruction: Counts for queries only, since documents have none.
        settings: Of the client that makes the vectors.

    Raises:
        ConfigurationError: `role` is neither "query" nor "document".
    """
    if role not in get_args(CacheRole):
        raise ConfigurationError(f'role must be "query" or "document", not {role!r}')
    task = instruction if role == "query" else None
    parts: list[object] = [role, model, root, task, settings.dimensions, settings.wire_dtype]
    if settings.extra_body:
        parts.append(settings.extra_body)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
    return f"{_UNSAFE.sub('_', model)[:_LONGEST_MODEL]}-{role}-{digest}"
