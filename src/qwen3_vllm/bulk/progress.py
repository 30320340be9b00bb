"""How far a run is, reported whenever more is safe on the disk."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

from qwen3_vllm._core.embedding.truncation import Truncation
from qwen3_vllm.bulk.engine import Step
from qwen3_vllm.bulk.manifest import named


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        rows: Rows passed over, of `total_rows`; both count blank lines.
        embedded: Documents embedded by this run.
        kept: Documents that an earlier run embedded.
        failed: Rows that could not be embedded, by this run or earlier ones.
        characters: Of the documents embedded by this run.
        tokens_per_character: Measured on a few documents of this input; None: the server counts no tokens.
        seconds: Since the first request of this run.
        truncated: Documents that were cut to the server's context, by this run or earlier ones.
        perhaps_truncated: Documents that the server may have cut: it does not count their tokens for us.
        longest_truncated: Tokens of the longest that was cut.
        truncated_to: Tokens that they were cut to.
        requests: Answered requests for the documents of the output, by this run or earlier ones.
        tokens: Input tokens that the server reported for them.
        uncounted: Requests among them that it reported no tokens for.
    """

    total_rows: int
    rows: int = 0
    embedded: int = 0
    kept: int = 0
    failed: int = 0
    characters: int = 0
    tokens_per_character: float | None = None
    seconds: float = 0.0
    truncated: int = 0
    perhaps_truncated: int = 0
    longest_truncated: int = 0
    truncated_to: int = 0
    requests: int = 0
    tokens: int = 0
    uncounted: int = 0

    @property
    def truncation(self) -> Truncation:
        return Truncation(self.truncated, self.perhaps_truncated, self.longest_truncated, self.truncated_to)


Summary = Progress
OnProgress: TypeAlias = Callable[[Progress], None]


class Tally:
    """Adds up steps, and reports the sum."""

    def __init__(self, total_rows: int, done_before: Step, on_progress: OnProgress | None) -> None:
        self.progress = Progress(total_rows, **_numbers(done_before))
        self._done = done_before
        self._on_progress = on_progress
        self._started = time.monotonic()

    def start(self, tokens_per_character: float | None) -> None:
        self._started = time.monotonic()
        self._tell(replace(self.progress, tokens_per_character=tokens_per_character))

    def add(self, step: Step) -> None:
        self._done = self._done.then(step)
        seconds = time.monotonic() - self._started
        self._tell(replace(self.progress, **_numbers(self._done), seconds=seconds))

    def _tell(self, progress: Progress) -> None:
        self.progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)


def _numbers(step: Step) -> dict[str, int]:
    counts = {name: value for name, value in step._asdict().items() if isinstance(value, int)}
    return {**counts, **asdict(step.usage), **named(step.truncation)}
