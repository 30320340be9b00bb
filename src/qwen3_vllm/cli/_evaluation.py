"""What `qwen3-vllm evaluate` shows: how far it is, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from qwen3_vllm._core.plurals import counted
from qwen3_vllm.cli._terminal import err, out, print_json, warn

if TYPE_CHECKING:
    from qwen3_vllm.evaluation import Evaluation
    from qwen3_vllm.evaluation import Progress as Done
    from qwen3_vllm.evaluation.results import Comparison
    from qwen3_vllm.evaluation.work import OnProgress

_WIDE = 120  # from here up, all metrics have a column


@contextmanager
def progress_bar() -> Iterator[OnProgress | None]:
    """A progress bar on standard error; nothing where that is not a terminal."""
    if not err.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        stage = ""

        def show(progress: Done) -> None:
            nonlocal stage, task
            if progress.stage != stage:
                bar.remove_task(task)
                task, stage = bar.add_task(progress.stage, total=progress.total), progress.stage
            bar.update(task, completed=progress.done)

        yield show


def print_evaluation(result: Evaluation, comparisons: Sequence[Comparison], *, as_json: bool) -> None:
    """Show what was measured, and the verdict; as JSON on standard output."""
    for warning in result.warnings:
        warn(warning)
    if as_json:
        print_json({**result.as_json(), "comparisons": [each.as_json() for each in comparisons]})
        return
    _print_set_ups(result)
    _print_thresholds(result)
    for each in comparisons:
        out.print(
            f"{each.metric} of {each.first} less that of {each.second}: {each.difference.value:+.3f} "
            f"({each.difference.low:+.3f} to {each.difference.high:+.3f}), p {each.p_value:.4f}"
        )
    out.print()
    for sentence in result.verdict.sentences:
        out.print(sentence, style="bold")


def _print_set_ups(result: Evaluation) -> None:
    from qwen3_vllm.evaluation.report.words import costs_of, loss, p_value

    queries = counted(len(result.query_ids), "query")
    out.print(f"{queries}, {counted(result.documents, 'document')}. All: {result.constant}")
    for line in result.legend:
        out.print(line)
    wide = out.width >= _WIDE
    others = [name for name in result.measured[0].metrics if name != result.metric] if wide else []
    shown = list(costs_of(result, result.best)) if wide else ["ms", "bytes"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("set-up", overflow="fold")
    table.add_column(f"{result.metric} (95 %)", no_wrap=True)
    for name in (*others, *(["loss, 95 %"] if wide else []), "p", *shown):
        table.add_column(name, justify="right", no_wrap=True)
    for each in result.best_first:
        quality = each.metrics[result.metric]
        mark = ">" if each is result.recommended else "*" if each is result.best else ""
        costs = costs_of(result, each)
        table.add_row(
            mark,
            str(each.number),
            Text(each.name),
            f"{quality.value:.3f} ({quality.low:.3f}-{quality.high:.3f})",
            *(f"{each.metrics[name].value:.3f}" for name in others),
            *([loss(each)] if wide else []),
            p_value(each),
            *(costs[name] for name in shown),
            style="bold" if mark else "",
        )
    out.print(table)
    out.print(
        f"> cheapest not significantly worse   * best   {'loss, ' if wide else ''}p: against the best, "
        "p Holm-corrected   ms: at the servers, per query   bytes: per vector",
        style="dim",
    )


def _print_thresholds(result: Evaluation) -> None:
    from qwen3_vllm.evaluation.report.words import threshold_cells

    if not result.thresholds:
        return
    columns = ("threshold of", "for", "score from", "95 % interval", "precision", "recall")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for number, found in result.thresholds.items():
        for each in found:
            table.add_row(str(number), *threshold_cells(each))
    out.print()
    out.print(table)
