"""What comes back of one call: vectors, lists of floats for frameworks, and a progress bar."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np

from qwen3_vllm._core.vllm_api.embeddings import Vectors

Lists = list[list[float]]


class Collector:
    """Takes the vectors of one call as they arrive.

    Attributes:
        vectors: Rows in the order of the call's texts; uninitialised where nothing has arrived.
        lists: The same numbers, made while other requests are under way; `[]` unless asked for.
    """

    def __init__(self, *, as_lists: bool = False, show_progress: bool = False) -> None:
        self._as_lists = as_lists
        self._show_progress = show_progress
        self._advance: Callable[[int], None] = _ignore
        self.vectors: Vectors = np.empty((0, 0), np.float32)
        self.lists: Lists = []

    def make_room(self, count: int, width: int) -> None:
        self.vectors = np.empty((count, width), np.float32)
        self.lists = [[]] * count if self._as_lists else []

    @contextmanager
    def progress(self, total: int) -> Iterator[None]:
        """Show how many of `total` texts have arrived, where that was asked for."""
        with _bar(total) if self._show_progress else nullcontext(_ignore) as self._advance:
            yield

    def take(self, batch: list[int], vectors: Vectors) -> None:
        """Keep the vectors of the texts at the indexes of `batch`."""
        self.vectors[rows_of(batch)] = vectors
        if self._as_lists:
            for index, numbers in zip(batch, vectors.tolist(), strict=True):
                self.lists[index] = numbers
        self._advance(len(batch))

    def spread(self, rows: Sequence[int], failures: Collection[int]) -> None:
        """Give each text of the call its own copy of the row that it shares; NaN where it failed."""
        self.vectors = self.vectors[rows]
        self.vectors[list(failures)] = np.nan
        if self._as_lists and not failures:
            self.lists = [self.lists[row].copy() for row in rows]


class Part(Collector):
    """Passes on the vectors of some of a call's texts, at `indexes`, to the collector of all of them."""

    def __init__(self, whole: Collector, indexes: Sequence[int]) -> None:
        super().__init__()
        self._whole, self._indexes = whole, indexes

    def make_room(self, count: int, width: int) -> None:
        pass  # the whole has room

    def take(self, batch: list[int], vectors: Vectors) -> None:
        self._whole.take([self._indexes[index] for index in batch], vectors)


def rows_of(batch: list[int]) -> slice | list[int]:
    """Indexes that follow each other as a slice, which copies in one piece."""
    first, last = batch[0], batch[-1]
    return slice(first, last + 1) if last - first + 1 == len(batch) else batch


def _ignore(count: int) -> None:
    pass


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; yields what to call with a number of texts that are done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda count: bar.advance(task, count)
