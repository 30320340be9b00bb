"""Who looks on while a client makes a call: nobody, in most processes."""

from types import TracebackType
from typing import Self


class Observer:
    """Observes one call, from `with` to its end, whatever that is; this one takes no notice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def begin_requests(self) -> None:
        """Make this call the parent of all that the current task does; the task is for this call alone."""

    def answered(self, address: str, tokens: int | None) -> None:
        """Note a request answered with embeddings or scores; None: its tokens were not reported."""

    def sent_again(self, error: Exception) -> None:
        """Note a failure after which a request is sent again."""


NOBODY = Observer()
