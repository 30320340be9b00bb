"""`qwen3-vllm evaluate`: what search and reranking give on a user's own data."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core.plurals import counted
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from qwen3_vllm.cli._evaluation import print_evaluation, progress_bar
from qwen3_vllm.cli._terminal import EXIT_FAILED, err, errors_in_one_line, fail
from qwen3_vllm.errors import ConfigurationError, InputError, Qwen3VLLMError

if TYPE_CHECKING:
    from qwen3_vllm.evaluation import Evaluation

Client = TypeVar("Client", EmbeddingClient, RerankClient)


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder in BEIR's layout; CSV, TSV or JSONL with `question` and `passage`; or a folder "
            "written by `qwen3-vllm embed`.",
            show_default=False,
        ),
    ],
    queries: Annotated[
        Path | None, typer.Option(help="File of queries (JSONL, TSV, CSV).", show_default="DATA's own")
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(
            help="File of judgements: TSV of BEIR or TREC, or a labelled sheet.", show_default="DATA's own"
        ),
    ] = None,
    instruction: Annotated[
        list[str] | None,
        typer.Option(help="A task sentence; may be repeated.", show_default="Qwen's, for web search"),
    ] = None,
    dimensions: Annotated[
        str,
        typer.Option(metavar="LIST", help="Dimensions, such as 1024,512,256.", show_default="the model's"),
    ] = "",
    vectors: Annotated[str, typer.Option(metavar="LIST", help="Any of float32, int8, binary.")] = "float32",
    candidates: Annotated[
        str, typer.Option(metavar="LIST", help="Documents to rerank; 0: search alone.")
    ] = "0,50",
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]URL",
            help="Embedding server; may be repeated.",
            show_default="QWEN3_EMBEDDING_URL, or http://127.0.0.1:8000",
        ),
    ] = None,
    reranker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]URL",
            help="Reranker; may be repeated.",
            show_default="QWEN3_RERANKER_URL, or http://127.0.0.1:8001",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Metrics, by ir_measures' names; the first decides.",
            show_default="nDCG@10,R@10,R@100,RR@10,Success@1",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Find the score from which results have this precision."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Find the score that keeps this share of what is relevant."),
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="N,M", help="Compare two set-ups, too; may be repeated.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a CSV to label instead: what the set-ups found first."),
    ] = None,
    sample_depth: Annotated[int, typer.Option(min=1, help="Documents of each set-up in the sample.")] = 10,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Folder for vectors and scores: nothing is computed twice.", show_default="DATA.evaluation"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of intervals, p-values and the sheet's order.")] = 0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Measure search and reranking on your own data, and what each set-up costs.

    Every combination of what is listed is measured; the last two sentences name the best set-up, and the
    cheapest that is not significantly worse. A run that is stopped resumes with the same command.

    Exit status: 0 measured, 1 a server failed, or stopped, 2 wrong usage, or data that cannot be read.

    Example: `qwen3-vllm evaluate my-data --dimensions 1024,256 --vectors float32,int8 --candidates 0,20,50`

    Example: `qwen3-vllm evaluate my-data --embedding 0.6B=http://gpu:8000 --embedding 8B=http://gpu:8010`

    Example: `qwen3-vllm evaluate data --sample a.csv; qwen3-vllm evaluate data --judgements a.csv`
    """
    with _errors():
        try:
            from qwen3_vllm import evaluation
        except ImportError as error:
            raise ConfigurationError(str(error)) from error
        embeddings = _clients(EmbeddingClient, "embedding", embedding)
        sizes = _numbers("candidates", candidates)
        rerankers = _clients(RerankClient, "reranker", reranker) if any(sizes) else {}
        pairs = [_pair(each) for each in compare or []]
        write_page = None if html is None else _page_writer(html)
        folder = keep or Path(f"{data.resolve().name}.evaluation")
        with progress_bar() as show:
            shared: dict[str, Any] = {
                "embeddings": embeddings,
                "rerankers": rerankers,
                "instructions": instruction or [DEFAULT_INSTRUCTION],
                "dimensions": _numbers("dimensions", dimensions),
                "vectors": _words(vectors),
                "candidates": sizes,
                "queries": queries,
                "keep": folder,
                "seed": seed,
                "on_progress": show,
            }
            if sample is not None:
                rows = evaluation.write_labelling_sheet(data, sample, depth=sample_depth, **shared)
            else:
                result = evaluation.evaluate(
                    data,
                    metrics=_words(metrics) if metrics is not None else evaluation.DEFAULT_METRICS,
                    precision=precision,
                    recall=recall,
                    judgements=judgements,
                    **shared,
                )
        if sample is not None:
            err.print(
                f"{counted(rows, 'row')} to label in {sample}: fill `relevant`, then --judgements {sample}"
            )
            return
        comparisons = [result.compare(*pair) for pair in pairs]
        if write_page is not None:
            write_page(result)
    print_evaluation(result, comparisons, as_json=as_json)


def _page_writer(file: Path) -> "Callable[[Evaluation], object]":
    """Return what writes the page; before the work, since matplotlib or the folder may be missing."""
    from qwen3_vllm.evaluation.report.page import report_html

    if not file.absolute().parent.is_dir():
        raise ConfigurationError(f"--html {file}: there is no folder {file.absolute().parent}")
    return lambda result: file.write_text(report_html(result), encoding="utf-8")


def _clients(kind: type[Client], role: str, given: Sequence[str] | None) -> dict[str, Client]:
    """Clients by name; an address without a name has that of its role, if it is the only one."""
    if not given:
        return {role: kind()}
    clients: dict[str, Client] = {}
    for each in given:
        name, equals, url = each.rpartition("=")
        if not equals and len(given) > 1:
            raise ConfigurationError(f"--{role} {each}: name each of several servers, as in 8B={each}")
        if (equals and not name) or name in clients:
            raise ConfigurationError(f"--{role} {each}: give each server a name of its own")
        clients[name or role] = kind(base_url=url)
    return clients


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigurationError(f"--{option} {text}: use whole numbers, with commas between") from None


def _pair(text: str) -> tuple[int, int]:
    numbers = _numbers("compare", text)
    if len(numbers) != 2:
        raise ConfigurationError(f"--compare {text}: use two numbers of set-ups, as in 1,4")
    return numbers[0], numbers[1]


@contextmanager
def _errors() -> Iterator[None]:
    """End the command as all do, and say that it resumes where something failed on the way."""
    with errors_in_one_line():
        try:
            yield
        except (ConfigurationError, InputError):
            raise
        except (Qwen3VLLMError, OSError) as error:
            fail(f"{error}\nWhat is done is kept: the same command resumes", EXIT_FAILED)
        except KeyboardInterrupt:
            fail("stopped; the same command resumes", EXIT_FAILED)
