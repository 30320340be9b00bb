"""`qwen3-vllm rerank` and `qwen3-vllm search`: the two stages, on files, to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.reranking.ranking import RerankResult
from qwen3_vllm.cli._documents import NamedText, TextFormat, read
from qwen3_vllm.cli._terminal import err, fail, out, print_json, warn
from qwen3_vllm.errors import ConfigurationError, InputError, Qwen3VLLMError

if TYPE_CHECKING:
    from qwen3_vllm.cli._index import Hit, Index

EXIT_FAILED, EXIT_REFUSED = 1, 2
_ID_WIDTH = 40

Instruction = Annotated[
    str | None, typer.Option(help="The task, in English.", show_default="Qwen's, for web search")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with whole texts.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("rerank")(rerank)
    app.command("search")(search)


def rerank(
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help=".txt (a text a line), .md (paragraphs), .jsonl, or `-` for standard input.",
            show_default=False,
        ),
    ],
    top_n: Annotated[
        int | None, typer.Option("--top-n", "-n", min=1, help="Texts to show.", show_default="all")
    ] = None,
    instruction: Instruction = None,
    format: Annotated[
        TextFormat | None,
        typer.Option(help="What FILE holds.", show_default="by its ending, or by its first line"),
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field of the text in JSONL.")] = "text",
    base_url: Annotated[
        str | None, typer.Option(help="Server.", show_default="QWEN3_RERANKER_URL, or http://127.0.0.1:8001")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the texts of a file by how well they answer a query.

    Exit status: 0 ranked, 1 the server failed, 2 wrong usage.

    Example: `qwen3-vllm rerank "What is the capital of China?" notes.md --top-n 3`

    Example: `grep -h capital *.txt | qwen3-vllm rerank "What is the capital of China?" - --json`
    """
    with _errors():
        texts = read(file, format, text_field)
        client = RerankClient(base_url=base_url, instruction=instruction)
        with err.status(f"ranking {len(texts):,} texts"):
            results = client.rerank(query, [each.text for each in texts], top_n=top_n)
    if as_json:
        _print_results(query, [_ranked(rank, each, texts) for rank, each in enumerate(results, 1)])
        return
    table = _table(query, "rank", "was", "P(yes)", "label")
    for rank, each in enumerate(results, 1):
        was = each.index + 1
        table.add_row(*_places(rank, was), *_judgement(each), _one_line(texts[each.index].text))
    out.print(table)


def search(
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    index_dir: Annotated[
        Path,
        typer.Argument(metavar="INDEX_DIR", help="Folder written by `qwen3-vllm embed`.", show_default=False),
    ],
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Candidates by cosine.")] = 20,
    top_n: Annotated[int, typer.Option("--top-n", "-n", min=1, help="Documents to show.")] = 5,
    reranked: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="Rerank the candidates, or show them as found.")
    ] = True,
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="Embedded files, if they have moved; may be repeated.", show_default=False),
    ] = None,
    instruction: Instruction = None,
    embedding_url: Annotated[
        str | None, typer.Option(help="Embeddings.", show_default="QWEN3_EMBEDDING_URL, or 127.0.0.1:8000")
    ] = None,
    reranker_url: Annotated[
        str | None, typer.Option(help="Reranker.", show_default="QWEN3_RERANKER_URL, or 127.0.0.1:8001")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a folder of embedded documents, and show what reranking changes.

    Texts are read from the files that were embedded; the index holds their ids. A server of another model
    than the index's is refused.

    Exit status: 0 searched, 1 a server failed, 2 wrong usage.

    Example: `qwen3-vllm embed corpus.jsonl -o index; qwen3-vllm search "How do I reset it?" index`
    """
    with _errors():
        index = _open_index(index_dir)
        if not query.strip():
            raise InputError("the query is empty")
        with err.status("searching"):
            hits = index.nearest(index.embed(query, embedding_url, instruction), top_k)
            found = _texts_of(index, hits, texts or [], needed=reranked)
        if reranked:
            client = RerankClient(base_url=reranker_url, instruction=instruction)
            with err.status(f"ranking {len(hits)} candidates"):
                results = client.rerank(query, [each.text for each in found], top_n=top_n)
    if not reranked:
        _show_found(query, hits[:top_n], found, as_json)
    elif as_json:
        rows = [_ranked(rank, each, found) for rank, each in enumerate(results, 1)]
        cosines = [{"cosine": hits[each.index].cosine} for each in results]
        _print_results(query, [row | cosine for row, cosine in zip(rows, cosines, strict=True)])
    else:
        table = _table(query, "rank", "was", "P(yes)", "label", "cosine", has_id=True)
        for rank, each in enumerate(results, 1):
            cosine = f"{hits[each.index].cosine:.4f}"
            hit_id, text = _one_line(hits[each.index].id), _one_line(found[each.index].text)
            table.add_row(*_places(rank, each.index + 1), *_judgement(each), cosine, hit_id, text)
        out.print(table)
        out.print(f"of {len(hits)} candidates; was: place by cosine", style="dim")


def _open_index(folder: Path) -> Index:
    try:
        from qwen3_vllm import bulk  # noqa: F401  # first, because it tells what to install
        from qwen3_vllm.cli._index import Index
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    index = Index(folder)
    if not index.is_complete:
        warn(f"{folder} is not complete: what is there is searched")
    return index


def _texts_of(index: Index, hits: Sequence[Hit], given: Sequence[Path], *, needed: bool) -> list[NamedText]:
    """Texts of hits, under the hits' ids; empty ones where they are not needed and cannot be found."""
    try:
        texts, changed = index.texts(hits, given)
    except ConfigurationError:
        if needed or given:
            raise
        return [NamedText("", hit.id) for hit in hits]
    for name in changed:
        warn(f"{name} has changed since it was embedded")
    return [NamedText(text, hit.id) for text, hit in zip(texts, hits, strict=True)]


def _show_found(query: str, hits: Sequence[Hit], texts: Sequence[NamedText], as_json: bool) -> None:
    if as_json:
        rows = enumerate(zip(hits, texts, strict=False), 1)
        _print_results(
            query,
            [
                {"rank": rank, "id": hit.id, "text": each.text or None, "cosine": hit.cosine}
                for rank, (hit, each) in rows
            ],
        )
        return
    table = _table(query, "rank", "cosine", has_id=True)
    for rank, (hit, each) in enumerate(zip(hits, texts, strict=False), 1):
        table.add_row(str(rank), f"{hit.cosine:.4f}", _one_line(hit.id), _one_line(each.text))
    out.print(table)


def _ranked(rank: int, result: RerankResult, texts: Sequence[NamedText]) -> dict[str, Any]:
    return {
        "rank": rank,
        "was": result.index + 1,
        "id": texts[result.index].id,
        "relevance_score": result.relevance_score,
        "label": result.label,
        "text": texts[result.index].text,
    }


def _print_results(query: str, results: Sequence[dict[str, Any]]) -> None:
    print_json({"query": query, "results": results})


def _table(query: str, *columns: str, has_id: bool = False) -> Table:
    table = Table(
        title=Text(_one_line(query).plain, style="bold"), title_justify="left", box=None, expand=True
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True, header_style="dim")
    if has_id:  # whole, on several lines if need be: by a part of it nothing can be found again
        table.add_column("id", max_width=_ID_WIDTH, overflow="fold", header_style="dim")
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis", header_style="dim")
    return table


def _places(rank: int, was: int) -> tuple[Text, Text]:
    """Both places of a text, with how far it has moved."""
    if was == rank:
        return Text(str(rank)), Text(f"{was}     ", style="dim")
    arrow, style = ("▲", "green") if was > rank else ("▼", "red")
    return Text(str(rank), style="bold"), Text(f"{was} {arrow}{abs(was - rank):<3}", style=style)


def _judgement(result: RerankResult) -> tuple[str, Text]:
    style = "green" if result.label == "yes" else "dim"
    return f"{result.relevance_score:.4f}", Text(result.label, style=style)


def _one_line(text: str) -> Text:
    """A text as a table shows it; what would move the cursor, or colour the terminal, is taken out."""
    return Text(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors into a line and an exit status."""
    try:
        yield
    except (ConfigurationError, InputError) as error:
        fail(str(error), EXIT_REFUSED)
    except Qwen3VLLMError as error:
        fail(str(error), EXIT_FAILED)
