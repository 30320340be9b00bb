"""What keeps an input from being read as it is said to be, found out before a document is sent."""

import codecs
from collections.abc import Sequence

import orjson

from qwen3_vllm._core.text_files.fields import reach
from qwen3_vllm._core.text_files.sources import Source
from qwen3_vllm._core.text_files.utf8 import open_raw, open_source
from qwen3_vllm.bulk.parts import Fields
from qwen3_vllm.errors import ConfigurationError

_FEW_WRONG = 10  # lines, which may be wrong on their own whatever the others are
_HEAD_BYTES = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", ""),
    (codecs.BOM_UTF32_LE, "utf-32", "-le"),
    (codecs.BOM_UTF32_BE, "utf-32", "-be"),
    (codecs.BOM_UTF16_LE, "utf-16", "-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "-be"),
)
_GZIP = b"\x1f\x8b"


class Decoded:
    """Counts lines, but for blank ones, that are not of the encoding that they should be of."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = self._beyond_ascii = self._wrong = 0

    def look_at(self, line: bytes) -> None:
        self._lines += not line.isspace()
        if not line.isascii():
            self._beyond_ascii += 1
            try:
                line.decode()
            except UnicodeDecodeError:
                self._wrong += 1

    def check(self) -> None:
        """Raise ConfigurationError if it is not about single rows."""
        wrong = self._wrong
        if wrong * 2 > self._lines or (wrong > _FEW_WRONG and wrong * 2 > self._beyond_ascii):
            raise ConfigurationError(
                f"{self._source.name} is not {self._source.encoding or 'UTF-8'}: {wrong:,} of its "
                f"{self._lines:,} lines cannot be read so. Say --encoding NAME, such as gb18030 or cp1252"
            )


class FieldsOfJson:
    """Looks for fields in rows of JSON, until each was in one."""

    def __init__(self, source: Source, fields: Fields) -> None:
        self._source = source
        self.missing = fields.wanted
        self._keys: list[str] | None = None
        self._is_blank = True

    def look_at(self, line: object) -> None:
        if not isinstance(line, bytes) or not line.strip():
            return
        self._is_blank = False
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        if isinstance(record, dict):
            if self._keys is None:
                self._keys = list(record)
            self.missing = [(option, name) for option, name in self.missing if not _has(record, name)]

    def check(self) -> None:
        """Raise ConfigurationError if there are rows, and one of the fields is in none of them."""
        if not self.missing or self._is_blank:
            return
        if self._keys is None:
            raise ConfigurationError(
                f"no line of {self._source.name} is a JSON object: give --format, or repair the file"
            )
        raise no_column(self._source, self._keys, *self.missing[0])


def _has(record: dict[str, object], name: str) -> bool:
    try:
        reach(record, name)
    except KeyError:
        return False
    return True


def check_head(source: Source) -> None:
    """Raise ConfigurationError for what reading by lines would take for one line, or for nonsense."""
    with open_raw(source) as file:
        raw = file.read(_HEAD_BYTES)
    if raw.startswith(_GZIP):
        raise ConfigurationError(
            f"{source.name} is compressed with gzip: give a file whose name ends in .gz, or unpack it"
        )
    found = next(((name, order) for mark, name, order in _MARKS if raw.startswith(mark)), None)
    if found is not None and (source.encoding or "utf-8") not in (found[0], "".join(found)):
        raise ConfigurationError(
            f"{source.name} begins with the byte order mark of {found[0]}: give --encoding {found[0]}"
        )
    if source.encoding is None and b"\0" in raw[:4]:
        raise ConfigurationError(
            f"{source.name} begins with a null byte as UTF-16 does: give --encoding utf-16-le or utf-16-be"
        )
    with open_source(source) as file:
        head = file.read(_HEAD_BYTES)
    if b"\r" in head.rstrip(b"\r") and b"\n" not in head and source.format != "paragraphs":
        raise ConfigurationError(
            f"{source.name} has lines that end in a carriage return alone: "
            "replace these, for example with `tr '\\r' '\\n'`"
        )


def check_columns(source: Source, columns: list[str], fields: Fields) -> None:
    for option, name in fields.wanted:
        if name not in columns:
            raise no_column(source, columns, option, name)
    for name in (fields.text, fields.id or "id"):
        if columns.count(name) > 1:
            raise ConfigurationError(
                f"{source.name} has {columns.count(name)} columns called {name!r}: rename all but one"
            )


def no_column(source: Source, columns: Sequence[str], option: str, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source.name} has no column {name!r}, but has {', '.join(columns) or 'none at all'}: "
        f"give --{option}-field NAME"
    )
