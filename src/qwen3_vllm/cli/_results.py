"""Ranked texts, as a table or as JSON."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from qwen3_vllm import RerankResult
from qwen3_vllm._core.text_files.whole import NamedText
from qwen3_vllm.cli._terminal import out, print_json

# Of the column of ids: on a narrow terminal, half of what the numbers leave; the other half is for the texts.
_ID_LEAST, _ID_MOST, _NUMBERS = 8, 40, 40

Instruction = Annotated[
    str | None, typer.Option(help="The task, in English.", show_default="Qwen's, for web search")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with whole texts.")]


def ranked(rank: int, result: RerankResult, texts: Sequence[NamedText]) -> dict[str, Any]:
    return {
        "rank": rank,
        "was": result.index + 1,
        "id": texts[result.index].id,
        "relevance_score": result.relevance_score,
        "label": result.label,
        "text": texts[result.index].text,
    }


def print_results(query: str, results: Sequence[dict[str, Any]]) -> None:
    print_json({"query": query, "results": results})


def new_table(query: str, *columns: str, has_id: bool = False) -> Table:
    table = Table(
        title=Text(one_line(query).plain, style="bold"), title_justify="left", box=None, expand=True
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True, header_style="dim")
    if has_id:  # whole, on several lines if need be: by a part of it nothing can be found again
        width = min(_ID_MOST, max(_ID_LEAST, (out.width - _NUMBERS) // 2))
        table.add_column("id", max_width=width, overflow="fold", header_style="dim")
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis", header_style="dim")
    return table


def places(rank: int, was: int) -> tuple[Text, Text]:
    """Both places of a text, with how far it has moved."""
    if was == rank:
        return Text(str(rank)), Text(f"{was}     ", style="dim")
    arrow, style = ("▲", "green") if was > rank else ("▼", "red")
    return Text(str(rank), style="bold"), Text(f"{was} {arrow}{abs(was - rank):<3}", style=style)


def judgement(result: RerankResult) -> tuple[str, Text]:
    style = "green" if result.label == "yes" else "dim"
    return f"{result.relevance_score:.4f}", Text(result.label, style=style)


def one_line(text: str) -> Text:
    """A text as a table shows it; what would move the cursor, or colour the terminal, is taken out."""
    return Text(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
