"""Texts to rerank, from a file or standard input. Pure apart from `read`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qwen3_vllm._core.fields import reach
from qwen3_vllm.errors import InputError

_BLANK_LINES = re.compile(r"\n[^\S\n]*\n")


class TextFormat(StrEnum):
    """How a file holds texts."""

    JSONL = "jsonl"
    TEXT = "text"
    PARAGRAPHS = "paragraphs"


_BY_SUFFIX = {
    ".jsonl": TextFormat.JSONL,
    ".ndjson": TextFormat.JSONL,
    ".md": TextFormat.PARAGRAPHS,
    ".txt": TextFormat.TEXT,
}


@dataclass(frozen=True)
class NamedText:
    """A text, and its id where the file gives one."""

    text: str
    id: str | None = None


def read(name: str, format: TextFormat | None, text_field: str) -> list[NamedText]:
    """Read the texts of a file, or of standard input if its name is `-`.

    Args:
        format: None: by the name's ending; else JSONL if the first line is an object, or a text a line.

    Raises:
        InputError: It cannot be read, or holds no text; says where and why.
    """
    try:
        if name == "-" and sys.stdin is None:
            raise InputError("standard input is closed")
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        content = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 (byte {error.start})") from error
    texts = split(content, format or _BY_SUFFIX.get(Path(name).suffix.lower()), text_field, name)
    if not texts:
        raise InputError(f"{name}: holds no text")
    return texts


def split(content: str, format: TextFormat | None, text_field: str, name: str) -> list[NamedText]:
    """Split what a file holds into texts; blank ones are left out."""
    # Not splitlines: U+2028 and its like are ordinary characters inside a JSON string.
    lines = content.split("\n")
    if format is None:
        first = next((line.strip() for line in lines if line.strip()), "")
        format = TextFormat.JSONL if first.startswith("{") and first.endswith("}") else TextFormat.TEXT
    if format is TextFormat.JSONL:
        return [
            _from_json(line, text_field, f"{name}, line {number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    pieces = lines if format is TextFormat.TEXT else _BLANK_LINES.split(content.replace("\r\n", "\n"))
    return [NamedText(piece.strip()) for piece in pieces if piece.strip()]


def _from_json(line: str, text_field: str, where: str) -> NamedText:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # too long a number, and too deep a nesting, too
        raise InputError(f"{where}: not JSON: {error}") from error
    try:
        text = reach(record, text_field) if isinstance(record, dict) else None
    except KeyError:
        text = None
    if not isinstance(text, str):
        raise InputError(f'{where}: want an object with a text, {{"{text_field}": "..."}}')
    id = record.get("id")
    return NamedText(text, None if id is None else str(id))
