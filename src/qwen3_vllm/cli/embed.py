"""`qwen3-vllm embed`: files in, Parquet out."""

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from qwen3_vllm import EmbeddingClient
from qwen3_vllm._core.text_files.sources import Format
from qwen3_vllm.cli._embed_progress import print_summary, shown_progress
from qwen3_vllm.cli._terminal import EXIT_FAILED, EXIT_REFUSED, fail
from qwen3_vllm.errors import ConfigurationError, Qwen3VLLMError


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, quoted globs, or `-` for standard input."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of Parquet files; an unfinished run in it is resumed."),
    ],
    base_url: Annotated[
        list[str] | None,
        typer.Option(
            help="Server; several share the work.",
            show_default="QWEN3_EMBEDDING_URL, or http://127.0.0.1:8000",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name at the server.", show_default="the first it lists")
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option(help="Column of ids. Documents without one get `input:row`.", show_default="id"),
    ] = None,
    text_field: Annotated[
        str, typer.Option(help="Column of texts; `a.b` reaches into nested objects.")
    ] = "text",
    format: Annotated[
        Format | None,
        typer.Option(help="Format of all inputs.", show_default="by their endings; - is jsonl"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoding of all inputs but Parquet: gb18030, utf-16, cp1252, …",
            show_default="utf-8",
        ),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the vectors.", show_default="the model's")
    ] = None,
    truncate: Annotated[
        bool, typer.Option(help="Cut documents that are too long, or report them as errors.")
    ] = True,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Documents per request.", show_default="32")
    ] = None,
    max_concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Concurrent requests.", show_default="32"),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds a request may take.", show_default="300")
    ] = None,
    max_retries: Annotated[
        int | None, typer.Option(min=0, help="How often a failed request is sent again.", show_default="3")
    ] = None,
    part_rows: Annotated[
        int | None, typer.Option(min=1, help="Input rows per Parquet file.", show_default="16384")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: on the Ray cluster of RAY_ADDRESS.")
    ] = "local",
    workers: Annotated[
        str, typer.Option(metavar="MIN[:MAX]", help="With --engine ray: parts embedded at once.")
    ] = "1:4",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed the documents of JSONL, CSV, Parquet or text files into a folder of Parquet files.

    Stop it at any moment, in any way; the same command resumes it. Rows that cannot be embedded are
    listed in errors.jsonl in the folder.

    Exit status: 0 all embedded, 1 stopped, or some rows are in errors.jsonl, 2 refused before the start.

    Example: `qwen3-vllm embed 'corpus/*.jsonl.gz' -o vectors --text-field body`

    Example: `zcat corpus.csv.gz | qwen3-vllm embed - --format csv -o vectors`
    """
    try:
        from qwen3_vllm.bulk import embed_files
        from qwen3_vllm.bulk.run import PART_ROWS
    except ImportError as error:
        fail(_with_notes(error), EXIT_REFUSED)
    logging.getLogger("qwen3_vllm.bulk").setLevel(logging.ERROR)  # the summary says what was cut
    try:
        client = EmbeddingClient(
            base_url=base_url or None,
            model=model,
            dimensions=dimensions,
            truncate=truncate,
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            timeout=timeout,
            max_retries=max_retries,
        )
        with shown_progress() as show:
            summary = embed_files(
                inputs,
                out,
                client=client,
                text_field=text_field,
                id_field=id_field,
                format=format,
                encoding=encoding,
                part_rows=part_rows or PART_ROWS,
                engine=engine,
                workers=_range(workers),
                on_progress=show,
            )
    except ConfigurationError as error:
        named = [f"--{name.replace('_', '-')}: {problem}" for name, problem in error.problems.items()]
        fail("; ".join(named) or _with_notes(error), EXIT_REFUSED)
    except ImportError as error:
        fail(_with_notes(error), EXIT_REFUSED)
    except (Qwen3VLLMError, OSError) as error:
        fail(_with_notes(error), EXIT_FAILED)
    except KeyboardInterrupt:
        fail("stopped; the same command resumes here", EXIT_FAILED)
    print_summary(summary, out, as_json=json)
    if summary.failed:
        raise typer.Exit(EXIT_FAILED)


def _range(workers: str) -> tuple[int, int]:
    fewest, _, most = workers.partition(":")
    try:
        numbers = int(fewest), int(most or fewest)
    except ValueError:
        numbers = 0, 0
    if not 0 < numbers[0] <= numbers[1]:
        raise ConfigurationError(f"--workers {workers!r}: give MIN or MIN:MAX, such as 2:8")
    return numbers


def _with_notes(error: Exception) -> str:
    return " ".join([str(error), *getattr(error, "__notes__", [])])
