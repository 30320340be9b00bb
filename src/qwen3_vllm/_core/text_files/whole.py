"""A whole file of texts at once, where it fits into memory."""

import io
from dataclasses import dataclass

from qwen3_vllm._core.text_files.lines import Lines, LongLineError
from qwen3_vllm._core.text_files.records import records
from qwen3_vllm._core.text_files.rows import RowReader
from qwen3_vllm._core.text_files.sources import Format
from qwen3_vllm._core.text_files.utf8 import as_utf8
from qwen3_vllm.errors import InputError


@dataclass(frozen=True, slots=True)
class NamedText:
    """A text, its id where the file gives one, and the number of its record."""

    text: str
    id: str | None = None
    number: int = 0


def read_texts(content: bytes, format: Format, name: str, text_field: str = "text") -> list[NamedText]:
    """Read the texts that a file of lines or paragraphs holds; blank ones are left out.

    Raises:
        InputError: A record is not a text; says which, and why.
    """
    reader = RowReader(name, format, text_field=text_field, id_field=None, encoding=None)
    record_name = "paragraph" if format == "paragraphs" else "line"
    texts = []
    try:
        for number, record in enumerate(records(format, Lines(as_utf8(io.BytesIO(content), None))), 1):
            row = reader.read(number, record, [])
            if row is None:
                continue
            where = f"{name}, {record_name} {number}"
            if row.problem is not None:
                raise InputError(f"{where} {row.problem}")
            if not isinstance(row.text, str):
                raise InputError(f"{where} has no text in {text_field!r} but {type(row.text).__name__}")
            text = row.text if format == "jsonl" else row.text.strip().replace("\r\n", "\n")
            texts.append(NamedText(text, None if row.id == reader.name_of(number) else row.id, number))
    except LongLineError as error:
        raise InputError(f"{name}: {error}") from error
    return texts
