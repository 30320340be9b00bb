"""Which inputs there are, and of which format."""

import codecs
import glob
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TextIO, get_args

from qwen3_vllm.errors import ConfigurationError

Format = Literal["jsonl", "csv", "tsv", "text", "paragraphs", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
STDIN = "-"

_BY_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "paragraphs",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        name: What the user called it: it stands in ids, errors and the manifest.
        encoding: Of its text. None: UTF-8.
        state: What `state_of` returned when it was scanned; None: not known.
    """

    name: str
    path: Path
    format: Format
    gzipped: bool = False
    encoding: str | None = None
    state: tuple[int, ...] | None = None


def find_sources(
    inputs: Sequence[str | Path], format: Format | None = None, encoding: str | None = None
) -> list[Source]:
    """Return the inputs in order, with globs expanded and sorted, each file once.

    Args:
        format: Of all inputs, whatever they are called. None: by their endings, and JSONL for `-`.
        encoding: As `known_encoding` returns it.

    Raises:
        ConfigurationError: An input that is not there, or of an unknown format.
    """
    found: dict[Path, Source] = {}
    for name in (name for given in inputs for name in _expand(str(given))):
        source = replace(_source(name, format), encoding=encoding)
        found.setdefault(source.path.resolve(), source)
    if not found:
        raise ConfigurationError("no inputs")
    by_name: dict[str, Source] = {}
    for source in found.values():
        if by_name.setdefault(source.name, source) is not source:
            raise ConfigurationError(f"two inputs would be called {source.name}: rename one")
    return list(found.values())


def format_of(path: Path) -> tuple[Format | None, bool]:
    """Tell a file's format by its ending, None for an unknown one; and whether it is gzipped."""
    return _BY_SUFFIX.get(ending_of(path)), path.suffix.lower() == ".gz"


def ending_of(path: Path) -> str:
    """Ending of a path in lower case, without a .gz behind it."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def known_encoding(name: str | None) -> str | None:
    """Return the canonical name of a text encoding, and None for UTF-8.

    Raises:
        ConfigurationError: Python knows none of this name.
    """
    if name is None:
        return None
    try:
        canonical = codecs.lookup(name).name
        bytes(4).decode(name)  # refuses codecs such as zlib and rot13, which are not of text
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError) as error:
        raise ConfigurationError(
            f"--encoding {name!r} is not a text encoding that Python knows; "
            "give one such as gb18030, utf-16 or cp1252"
        ) from error
    return None if canonical in ("utf-8", "utf-8-sig") else canonical


def state_of(path: Path) -> tuple[int, ...]:
    """Tell a file from the same file after a change, without reading it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def path_bytes(path: Path) -> bytes | str:
    """A path as Arrow takes it: it would refuse a text that stands for bytes that are not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def as_text(name: str) -> str:
    """A file's name as text: bytes of it that are not UTF-8 are written as in `caf\\xe9.txt`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def spool_stdin(sources: Sequence[Source], stdin: TextIO | None, path: Path) -> list[Source]:
    """Copy standard input, if it is among the sources, to a file: to resume, it is read twice."""
    if all(source.name != STDIN for source in sources):
        return list(sources)
    if stdin is None:
        raise ConfigurationError("standard input is closed")
    with path.open("wb") as copy:
        shutil.copyfileobj(stdin.buffer, copy, 1 << 20)
    return [
        replace(source, name="stdin", path=path) if source.name == STDIN else source for source in sources
    ]


def _expand(name: str) -> list[str]:
    if name == STDIN or not glob.has_magic(name) or Path(name).exists():
        return [name]
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # Path.glob refuses absolute ones
    files = [match for match in matches if not Path(match).is_dir()]
    if not files:
        raise ConfigurationError(f"no file matches {name}")
    return files


def _source(name: str, format: Format | None) -> Source:
    path = Path(name)
    if name == STDIN:
        if format == "parquet":
            raise ConfigurationError("Parquet cannot be read from standard input: give the file")
        return Source(name, path, format or "jsonl")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        what = "points to a file that is not there" if path.is_symlink() else "is not there"
        raise ConfigurationError(f"{name} {what}; looked for {path.absolute()}") from None
    except (OSError, ValueError) as error:  # a loop of links, a folder that may not be entered, a NUL
        raise ConfigurationError(f"{name} cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_ISDIR(mode):
        raise ConfigurationError(f"{name} is a folder: give files, or a glob such as {path / '*.jsonl'}")
    if not stat.S_ISREG(mode):
        raise ConfigurationError(
            f"{name} is a pipe or a device, which cannot be read twice: give it as standard input, "
            f"`qwen3-vllm embed - --format ... < {name}`"
        )
    told, gzipped = format_of(path)
    known = format or told
    if known is None:
        raise ConfigurationError(
            f"{name}: cannot tell the format from {as_text(ending_of(path)) or 'no ending'}; "
            f"give --format {'|'.join(FORMATS)}"
        )
    if gzipped and known == "parquet":
        raise ConfigurationError(f"{name}: unpack it; Parquet is compressed inside")
    return Source(as_text(name), path.absolute(), known, gzipped)
