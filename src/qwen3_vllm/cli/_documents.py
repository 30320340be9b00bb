"""Texts to rerank, from a file or standard input."""

import sys
from pathlib import Path
from typing import Literal

from qwen3_vllm._core.text_files.whole import NamedText, read_texts
from qwen3_vllm.errors import InputError

TextFormat = Literal["jsonl", "text", "paragraphs"]

_BY_SUFFIX: dict[str, TextFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".md": "paragraphs",
    ".txt": "text",
}


def read(name: str, format: TextFormat | None, text_field: str) -> list[NamedText]:
    """Read the texts of a file, or of standard input if its name is `-`.

    Args:
        format: None: by the name's ending; else JSONL if the first line is an object, or one text per line.

    Raises:
        InputError: It cannot be read, or holds no text; says where and why.
    """
    try:
        if name == "-" and sys.stdin is None:
            raise InputError("standard input is closed")
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    chosen = format or _BY_SUFFIX.get(Path(name).suffix.lower()) or _format_of(content)
    texts = read_texts(content, chosen, name, text_field)
    if not texts:
        raise InputError(f"{name}: holds no text")
    return texts


def _format_of(content: bytes) -> TextFormat:
    lines = (line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    first = next(filter(None, lines), b"")
    return "jsonl" if first.startswith(b"{") and first.endswith(b"}") else "text"
