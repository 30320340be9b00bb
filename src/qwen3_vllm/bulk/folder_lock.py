"""A folder that one process at a time writes to."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen3_vllm.errors import ConfigurationError

LOCK = "_lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make or open a folder for one run at a time; the lock goes with the process.

    Raises:
        ConfigurationError: It cannot be written, or another run writes there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("ab")
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from error
    with lock:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(f"another run is writing to {folder}") from None
        yield
