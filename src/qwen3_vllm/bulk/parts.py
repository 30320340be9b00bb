"""Pieces of an input that are embedded one after another, and what its columns are called."""

from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """Rows `first` to `last` of a source, and the byte at which they start (not used for Parquet)."""

    source: int
    first: int
    last: int
    offset: int

    @property
    def name(self) -> str:
        return f"{self.source:05d}-{self.first:012d}"

    @property
    def rows(self) -> int:
        return self.last - self.first + 1


class Span(NamedTuple):
    """Rows `first` to `last` of a part: what one chunk covers."""

    part: Part
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.part.name}-{self.first:012d}-{self.last:012d}"


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of columns. `id=None`: "id" if there is one."""

    text: str = "text"
    id: str | None = None

    @property
    def wanted(self) -> list[tuple[str, str]]:
        """The columns that must be there, by the options that name them."""
        return [("text", self.text), *([("id", self.id)] if self.id is not None else [])]
