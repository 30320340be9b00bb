"""Which inputs there are, and of which format."""

import glob
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, get_args

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
    """One input. `name` is what the user called it: it stands in ids, errors and the manifest."""

    name: str
    path: Path
    format: Format
    gzipped: bool = False


def find_sources(inputs: Sequence[str | Path], format: Format | None = None) -> list[Source]:
    """Return the inputs in order, with globs expanded and sorted, each file once.

    Args:
        format: Of all inputs, whatever they are called. None: by their endings, and JSONL for `-`.

    Raises:
        ConfigurationError: An input that is not there, or of an unknown format.
    """
    found: dict[Path, Source] = {}
    for name in (name for given in inputs for name in _expand(str(given))):
        source = _source(name, format)
        found.setdefault(source.path.resolve(), source)
    if not found:
        raise ConfigurationError("no inputs")
    return list(found.values())


def spool_stdin(sources: Sequence[Source], stdin: BinaryIO, path: Path) -> list[Source]:
    """Copy standard input, if it is among the sources, to a file: to resume, it is read twice."""
    if all(source.name != STDIN for source in sources):
        return list(sources)
    with path.open("wb") as copy:
        shutil.copyfileobj(stdin, copy, 1 << 20)
    return [
        replace(source, name="stdin", path=path) if source.name == STDIN else source for source in sources
    ]


def _expand(name: str) -> list[str]:
    if name == STDIN or Path(name).exists() or not glob.has_magic(name):
        return [name]
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # Path.glob refuses absolute ones
    files = [match for match in matches if Path(match).is_file()]
    if not files:
        raise ConfigurationError(f"no file matches {name}")
    return files


def _source(name: str, format: Format | None) -> Source:
    path = Path(name)
    if name == STDIN:
        if format == "parquet":
            raise ConfigurationError("Parquet cannot be read from standard input: give the file")
        return Source(name, path, format or "jsonl")
    if not path.is_file():
        what = "is a folder: give files, or a glob such as" if path.is_dir() else "is not there; looked for"
        raise ConfigurationError(f"{name} {what} {path / '*.jsonl' if path.is_dir() else path.resolve()}")
    gzipped = path.suffix.lower() == ".gz"
    suffix = (path.with_suffix("") if gzipped else path).suffix.lower()
    known = format or _BY_SUFFIX.get(suffix)
    if known is None:
        raise ConfigurationError(
            f"{name}: cannot tell the format from {suffix or 'no ending'}; say --format {'|'.join(FORMATS)}"
        )
    if gzipped and known == "parquet":
        raise ConfigurationError(f"{name}: unpack it; Parquet is compressed inside")
    return Source(name, path.absolute(), known, gzipped)
