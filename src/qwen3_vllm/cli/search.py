"""`qwen3-vllm search`: both stages, on a folder of embedded documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen3_vllm import RerankClient
from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.text_files.whole import NamedText
from qwen3_vllm.cli._results import (
    AsJson,
    Instruction,
    judgement,
    new_table,
    one_line,
    places,
    print_results,
    ranked,
)
from qwen3_vllm.cli._terminal import err, errors_in_one_line, out, warn
from qwen3_vllm.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from qwen3_vllm.bulk.output import Output
    from qwen3_vllm.cli._nearest import Hit


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
        list[str] | None,
        typer.Option(help="Embedding server.", show_default="QWEN3_EMBEDDING_URL, or 127.0.0.1:8000"),
    ] = None,
    reranker_url: Annotated[
        list[str] | None, typer.Option(help="Reranker.", show_default="QWEN3_RERANKER_URL, or 127.0.0.1:8001")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a folder of embedded documents, and show what reranking changes.

    Texts are read from the files that were embedded; the index holds their ids. A server of another model
    than the index's is refused.

    Exit status: 0 searched, 1 a server failed, 2 wrong usage.

    Example: `qwen3-vllm embed corpus.jsonl -o index; qwen3-vllm search "How do I reset it?" index`
    """
    with errors_in_one_line():
        output = _open(index_dir)
        from qwen3_vllm.cli._nearest import embed, nearest

        if not query.strip():
            raise InputError("the query is empty")
        with err.status("searching"):
            hits = nearest(output, embed(output, query, embedding_url or None, instruction), top_k)
            found = _texts_of(output, hits, texts or [], needed=reranked)
        if reranked:
            client = RerankClient(base_url=reranker_url or None, instruction=instruction)
            with err.status(f"ranking {counted(len(hits), 'candidate')}"):
                results = client.rerank(query, [each.text for each in found], top_n=top_n)
    if not reranked:
        _show_found(query, hits[:top_n], found, as_json)
    elif as_json:
        rows = [ranked(rank, each, found) for rank, each in enumerate(results, 1)]
        cosines = [{"cosine": hits[each.index].cosine} for each in results]
        print_results(query, [row | cosine for row, cosine in zip(rows, cosines, strict=True)])
    else:
        table = new_table(query, "rank", "was", "P(yes)", "label", "cosine", has_id=True)
        for rank, each in enumerate(results, 1):
            cosine = f"{hits[each.index].cosine:.4f}"
            hit_id, text = one_line(hits[each.index].id), one_line(found[each.index].text)
            table.add_row(*places(rank, each.index + 1), *judgement(each), cosine, hit_id, text)
        out.print(table)
        out.print(f"of {counted(len(hits), 'candidate')}; was: place by cosine", style="dim")


def _open(folder: Path) -> Output:
    try:
        from qwen3_vllm.bulk.output import Output
    except ImportError as error:  # it says what to install
        raise ConfigurationError(str(error)) from error
    output = Output(folder)
    if output.is_empty:
        raise ConfigurationError(f"{folder} has no finished part yet: let `qwen3-vllm embed` end")
    if not output.is_complete:
        warn(f"{folder} is not complete: what is there is searched")
    return output


def _texts_of(output: Output, hits: Sequence[Hit], given: Sequence[Path], *, needed: bool) -> list[NamedText]:
    """Texts of hits, under the hits' ids; empty ones where they are not needed and cannot be found."""
    from qwen3_vllm.cli._nearest import texts_of

    try:
        texts, changed = texts_of(hits, output, given)
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
        print_results(
            query,
            [
                {"rank": rank, "id": hit.id, "text": each.text or None, "cosine": hit.cosine}
                for rank, (hit, each) in rows
            ],
        )
        return
    table = new_table(query, "rank", "cosine", has_id=True)
    for rank, (hit, each) in enumerate(zip(hits, texts, strict=False), 1):
        table.add_row(str(rank), f"{hit.cosine:.4f}", one_line(hit.id), one_line(each.text))
    out.print(table)
