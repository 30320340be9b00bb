"""`qwen3-vllm rerank`: the texts of a file, ranked."""

from typing import Annotated

import typer

from qwen3_vllm import RerankClient
from qwen3_vllm._core.plurals import counted
from qwen3_vllm.cli._documents import TextFormat, read
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
from qwen3_vllm.cli._terminal import err, errors_in_one_line, out


def rerank(
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help=".txt (one text per line), .md (paragraphs), .jsonl, or `-` for standard input.",
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
        list[str] | None,
        typer.Option(
            help="Server; several share the work.",
            show_default="QWEN3_RERANKER_URL, or http://127.0.0.1:8001",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the texts of a file by how well they answer a query.

    Exit status: 0 ranked, 1 the server failed, 2 wrong usage.

    Example: `qwen3-vllm rerank "What is the capital of China?" notes.md --top-n 3`

    Example: `grep -h capital *.txt | qwen3-vllm rerank "What is the capital of China?" - --json`
    """
    with errors_in_one_line():
        texts = read(file, format, text_field)
        client = RerankClient(base_url=base_url or None, instruction=instruction)
        with err.status(f"ranking {counted(len(texts), 'text')}"):
            results = client.rerank(query, [each.text for each in texts], top_n=top_n)
    if as_json:
        print_results(query, [ranked(rank, each, texts) for rank, each in enumerate(results, 1)])
        return
    table = new_table(query, "rank", "was", "P(yes)", "label")
    for rank, each in enumerate(results, 1):
        was = each.index + 1
        table.add_row(*places(rank, was), *judgement(each), one_line(texts[each.index].text))
    out.print(table)
