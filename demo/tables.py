"""What the demo shows of a ranking. Pure: texts and places in, something that rich prints out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# Where a text may be cut: after a space, or after the punctuation of Chinese, which has no spaces.
_BREAK = re.compile(r"\s|(?<=[，。；：、！？）])")


@dataclass(frozen=True)
class Ranked:
    """A passage after reranking; `before` is its place by vector search, from 1 on."""

    text: str
    before: int
    cosine: float
    relevance_score: float
    is_answer: bool


def ranking(question: str, passages: Sequence[Ranked]) -> Table:
    """Show passages, best first, with how far reranking moved each."""
    table = Table(
        title=Text(question), title_justify="left", title_style="bold", expand=True, box=box.SIMPLE_HEAD
    )
    for heading in ("Rank", "Moved", "P(yes)", "Cosine"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Passage", ratio=1, no_wrap=True)
    for place, each in enumerate(passages, start=1):
        table.add_row(
            f"✓ {place}" if each.is_answer else str(place),
            movement(each.before - place),
            f"{each.relevance_score:.4f}",
            f"{each.cosine:.4f}",
            _OneLine(" ".join(each.text.split())),
            style="bold green" if each.is_answer else None,
        )
    return table


def movement(places: int) -> Text:
    """Mark how many places a passage rose, or fell where negative."""
    if not places:
        return Text("=", style="dim")
    return Text(f"▲ {places}", style="green") if places > 0 else Text(f"▼ {-places}", style="red")


def shorten(text: str, cells: int) -> str:
    """Cut a line that takes more cells of the terminal, between words where it can be."""
    if cell_len(text) <= cells:
        return text
    kept = set_cell_size(text, max(0, cells - 2)).rstrip()
    breaks = [match.end() for match in _BREAK.finditer(text) if match.start() <= len(kept)]
    if breaks and breaks[-1] > len(kept) / 2:
        kept = text[: breaks[-1]].rstrip()
    return f"{kept} …"


@dataclass(frozen=True)
class _OneLine:
    """A text on one line of whatever width there is."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(shorten(self.text, options.max_width), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(10, options.max_width), min(cell_len(self.text), options.max_width))
