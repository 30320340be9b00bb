"""The output on disk. Whatever moment a run is killed at, every file that is there is whole.

part-00000-000000000001.parquet   rows of input 0 from row 1 on; appears when it is complete
errors.jsonl                      the rows that could not be embedded, if there are any
_manifest.json                    what the output was made from, with which options
_progress/                        chunks of parts that are not complete yet
_lock                             held while a run writes
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import orjson

from qwen3_vllm._core.vllm_api.embeddings import Vectors
from qwen3_vllm.bulk.folder_lock import LOCK, locked_folder
from qwen3_vllm.bulk.manifest import MANIFEST
from qwen3_vllm.bulk.parts import Part, Span
from qwen3_vllm.bulk.tables import (
    DAMAGED,
    Kept,
    Notes,
    check_chunk,
    count_chunk,
    count_part,
    write_chunk,
    write_part,
)
from qwen3_vllm.errors import ConfigurationError

STDIN_COPY = "_stdin"
_PROGRESS = "_progress"


class Folder:
    """Writes and reads one output folder; `locked` guards it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.progress = path / _PROGRESS

    def is_done(self, part: Part) -> bool:
        return self._part_path(part).exists()

    def has_chunk(self, span: Span) -> bool:
        """Whether a chunk is there and whole: a disk may have lost some of it."""
        return check_chunk(self._chunk_path(span)) is not None

    def write_chunk(self, span: Span, ids: Sequence[str], vectors: Vectors, notes: Notes) -> None:
        """Keep a piece of a part, with what became of its other rows."""
        with _appearing(self._chunk_path(span), self.progress) as path:
            write_chunk(path, ids, vectors, notes)

    def publish(self, chunks: Sequence[Span], *, model: str, dimensions: int) -> None:
        """Join the chunks of a part, which cover all of it in order, into its file, and drop them."""
        part = chunks[0].part
        with _appearing(self._part_path(part), self.progress) as path:
            write_part(path, list(map(self._chunk_path, chunks)), model=model, dimensions=dimensions)
        self.discard_chunks(part)

    def discard_chunks(self, part: Part) -> None:
        for path in self.progress.glob(f"{part.name}-*"):
            path.unlink()

    def discard_leftovers(self, parts: Sequence[Part]) -> None:
        """Remove what a killed run left half written, or no longer needs."""
        done = {part.name for part in parts if self.is_done(part)}
        for path in self.progress.iterdir():
            if path.suffix != ".arrow" or "-".join(path.stem.split("-")[:2]) in done:
                path.unlink()

    def count_chunk(self, span: Span) -> Kept:
        """Count what is in a chunk that is there."""
        return count_chunk(self._chunk_path(span))

    def count(self, part: Part) -> Kept:
        """Count what is in a part that is done.

        Raises:
            ConfigurationError: Its file is damaged.
        """
        path = self._part_path(part)
        try:
            return count_part(path)
        except DAMAGED as error:
            raise ConfigurationError(
                f"{path} is damaged: remove it, and run the same again to make it anew ({error})"
            ) from error

    def write_errors(self, parts: Sequence[Part]) -> None:
        """Write errors.jsonl again, in the order of the inputs, from what parts and chunks know."""
        target = self.path / "errors.jsonl"
        found = False
        with _appearing(target, self.progress) as path, path.open("wb") as file:
            for notes in self.notes(parts):
                for failure in notes.failures:
                    found = True
                    file.write(orjson.dumps(failure._asdict(), option=orjson.OPT_APPEND_NEWLINE))
        if not found:
            target.unlink()

    def notes(self, parts: Sequence[Part]) -> Iterator[Notes]:
        """Read what parts and chunks note, in the order of the inputs."""
        for part in parts:
            if self.is_done(part):
                yield self.count(part).notes
            else:
                chunks = map(check_chunk, sorted(self.progress.glob(f"{part.name}-*.arrow")))
                yield from (chunk.notes for chunk in chunks if chunk is not None)

    def write_manifest(self, manifest: bytes) -> None:
        with _appearing(self.path / MANIFEST, self.progress) as path:
            path.write_bytes(manifest)

    def read_manifest(self) -> bytes | None:
        path = self.path / MANIFEST
        return path.read_bytes() if path.exists() else None

    def _part_path(self, part: Part) -> Path:
        return self.path / f"part-{part.name}.parquet"

    def _chunk_path(self, span: Span) -> Path:
        return self.progress / f"{span.name}.arrow"


@contextmanager
def locked(path: Path) -> Iterator[Folder]:
    """Make or open an output folder for one run at a time; the lock goes with the process.

    Raises:
        ConfigurationError: Another run writes there, or the folder holds something else.
    """
    folder = Folder(path)
    try:
        strangers = _strangers(path)
        if strangers:
            raise ConfigurationError(
                f"{path} holds {strangers[0]!r} and no output of this command: give a new folder"
            )
        folder.progress.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {path}: {error.strerror}") from error
    with locked_folder(path):
        yield folder


def _strangers(path: Path) -> list[str]:
    """What lies in a folder that is not an output, and is none of ours."""
    if not path.is_dir() or (path / MANIFEST).exists():
        return []
    return sorted(each.name for each in path.iterdir() if each.name not in (STDIN_COPY, LOCK, _PROGRESS))


@contextmanager
def _appearing(target: Path, scratch: Path) -> Iterator[Path]:
    """Yield a path to write to; the file then appears at `target`, whole and on the disk, or not at all."""
    path = scratch / f"{target.name}.{uuid4().hex}.tmp"
    try:
        yield path
    except Exception:  # such as a full disk, on which it would go on taking space
        path.unlink(missing_ok=True)
        raise
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(target)
    if sys.platform != "win32":
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
