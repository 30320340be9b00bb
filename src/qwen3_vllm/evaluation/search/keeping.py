"""What a run keeps, so that the next one asks for nothing twice: vectors, scores, and measured times.

NAME-vectors/documents-1024.rows      16 bytes that stand for a text, and its vector, again and again
NAME-vectors/queries-….rows           the same for queries, a file per instruction
NAME-scores/….rows                    the same for pairs of a query and a document, with one score
…/probe.json                          how the server answered a known text
…/times.jsonl                         what single calls took
_lock                                 held while a run writes
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from qwen3_vllm._core.client import Client, address_of
from qwen3_vllm._core.usage import count_usage
from qwen3_vllm.errors import WrongServerError

TIMED_CALLS = 20  # of each size
Advance = Callable[[int], None]
"""Called with how many more are done."""

_KEY_BYTES = 16
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def key_of(*texts: str) -> bytes:
    """16 bytes that stand for a text, or for several in this order."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8))
        digest.update(encoded)
    return digest.digest()


def file_name(name: str) -> str:
    """A name that no file system minds, different for different names."""
    safe = _UNSAFE.sub("_", name)[:40]
    return safe if safe == name else f"{safe}-{key_of(name).hex()[:8]}"


class Rows:
    """A file of keys with a row of float32 each. Rows are only added; a half-written one is cut off."""

    def __init__(self, path: Path, columns: int) -> None:
        self._path = path
        self._type = np.dtype([("key", f"V{_KEY_BYTES}"), ("values", "<f4", (columns,))])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        whole = self._file.tell() // self._type.itemsize
        self._file.truncate(whole * self._type.itemsize)
        self._row_of: dict[bytes, int] = {}
        if whole:
            keys = np.memmap(path, self._type, "r")["key"].tobytes()
            self._row_of = {
                keys[place : place + _KEY_BYTES]: row
                for row, place in enumerate(range(0, len(keys), _KEY_BYTES))
            }
        self._count = whole

    def __contains__(self, key: bytes) -> bool:
        return key in self._row_of

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Places of the keys that have no row yet; of a key that occurs twice, the first."""
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in self._row_of:
                first.setdefault(key, place)
        return list(first.values())

    def append(self, keys: Sequence[bytes], values: NDArray[np.float32]) -> None:
        """Add rows of new keys; they are on their way to the disk when this returns."""
        rows = np.empty(len(keys), self._type)
        rows["key"] = np.frombuffer(b"".join(keys), f"V{_KEY_BYTES}")
        rows["values"] = values
        self._file.write(rows.tobytes())
        self._file.flush()
        self._row_of.update(zip(keys, range(self._count, self._count + len(keys)), strict=True))
        self._count += len(keys)

    def rows_of(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        return np.fromiter((self._row_of[key] for key in keys), np.int64, len(keys))

    @property
    def values(self) -> NDArray[np.float32]:
        """All rows' values, in the file: reading some reads only these."""
        if not self._count:
            return np.empty((0, self._type["values"].shape[0]), np.float32)
        values: NDArray[np.float32] = np.memmap(self._path, self._type, "r", shape=(self._count,))["values"]
        return values

    def close(self) -> None:
        self._file.close()


class Times:
    """What calls took, kept in a file: seconds and tokens of calls of the same size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._calls: dict[int, list[tuple[float, float | None]]] = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                call = orjson.loads(line)
                self._calls.setdefault(call["size"], []).append((call["seconds"], call["tokens"]))
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue  # the last line of a killed run

    @contextmanager
    def measure(self, size: int) -> Iterator[None]:
        """Keep what the one call of a block takes: seconds, and tokens where the server reports them."""
        with count_usage() as count:
            started = time.perf_counter()
            yield
            seconds = time.perf_counter() - started
        used = count.usage
        self.add(size, seconds, None if used.uncounted else used.tokens)

    def add(self, size: int, seconds: float, tokens: float | None) -> None:
        self._calls.setdefault(size, []).append((seconds, tokens))
        with self._path.open("ab") as file:
            file.write(b"\n" + orjson.dumps({"size": size, "seconds": seconds, "tokens": tokens}))

    def count(self, size: int) -> int:
        return len(self._calls.get(size, ()))

    def seconds(self, size: int) -> float | None:
        """Median of the calls of this size; None where no call was measured.

        A size that was not measured, because its pairs had scores from an earlier run, lies on the line
        between those that were.
        """
        return self._between(size, {each: [call[0] for call in calls] for each, calls in self._calls.items()})

    def tokens(self, size: int) -> float | None:
        """Median of the calls of this size, as with `seconds`; None where the server reported none."""
        reported = {
            each: [tokens for _, tokens in calls if tokens is not None] for each, calls in self._calls.items()
        }
        return self._between(size, reported)

    @staticmethod
    def _between(size: int, calls: Mapping[int, Sequence[float]]) -> float | None:
        medians = {0: 0.0, **{each: float(np.median(calls[each])) for each in sorted(calls) if calls[each]}}
        if size in medians or size < max(medians):
            return float(np.interp(size, list(medians), list(medians.values())))
        last = max(medians)
        return medians[last] * size / last if last else None


def check_probes(
    path: Path,
    now: NDArray[np.float32],
    are_alike: Callable[[NDArray[np.float32], NDArray[np.float32]], bool],
    client: Client[Any],
    otherwise: str,
) -> None:
    """Keep what a server answers to a few known texts, or compare it with what was kept.

    Args:
        otherwise: What it gives if that is no longer the same: "other vectors than 'NAME'".

    Raises:
        WrongServerError: It is not.
    """
    try:
        before = np.asarray(orjson.loads(path.read_bytes()), np.float32)
    except (OSError, orjson.JSONDecodeError):  # none yet, or damaged
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.write_bytes(orjson.dumps(now.tolist()))
        unfinished.replace(path)
        return
    if not are_alike(before, now):
        raise WrongServerError(
            f"{address_of(client)} gives {otherwise} gave when {path.parent} was begun: it is another model, "
            "whatever its name. Give it another name (NAME=URL), or a new folder"
        )
