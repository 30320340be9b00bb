"""One HTML page of an evaluation, which loads nothing else."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from qwen3_vllm._core.plurals import counted
from qwen3_vllm.evaluation.measures.statistics import Estimate
from qwen3_vllm.evaluation.report import plots
from qwen3_vllm.evaluation.report.words import costs_of, in_words, loss, p_value, threshold_cells
from qwen3_vllm.evaluation.results import Evaluation, Measured

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --quiet: #5a6575; --line: #d5dae2; --paper: #fff;
  --chosen: #e6f0fb; --best: #fdf0e7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9f0; --quiet: #a3adbb; --line: #37404e;
  --paper: #14181f; --chosen: #16304d; --best: #3d2416; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.verdict { font-size: 1.1rem; border-left: 4px solid #0b6bcb; padding-left: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; color: var(--quiet); } .left { text-align: left; }
tr.recommended { background: var(--chosen); } tr.best { background: var(--best); }
small { color: var(--quiet); } img { max-width: 100%; background: #fff; border-radius: 4px; }
figure { margin: 1rem 0; }
"""


def report_html(evaluation: Evaluation) -> str:
    """Make the page.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    queries = counted(len(evaluation.query_ids), "query")
    title = f"Evaluation: {queries}, {counted(evaluation.documents, 'document')}"
    sections = [
        f'<p class="verdict">{escape(" ".join(evaluation.verdict.sentences))}</p>',
        _section("Set-ups", _set_ups(evaluation)),
        *_figures(evaluation),
        *_thresholds(evaluation),
        _section("How it was measured", _paragraphs(_method(evaluation))),
        *([_section("Warnings", _paragraphs(evaluation.warnings))] if evaluation.warnings else []),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _set_ups(evaluation: Evaluation) -> str:
    names = list(evaluation.measured[0].metrics)
    header = ["#", "set-up", *names, "loss, 95 %", "p", *costs_of(evaluation, evaluation.best)]
    rows = [
        (
            _class(evaluation, each),
            [
                str(each.number),
                each.name,
                *(_Markup(_estimate(each.metrics[name])) for name in names),
                loss(each),
                p_value(each),
                *costs_of(evaluation, each).values(),
            ],
        )
        for each in evaluation.best_first
    ]
    legend = "".join(f"<br>{escape(line)}" for line in evaluation.legend)
    meaning = (
        "Blue: the cheapest that is not significantly worse than the best. "
        f"loss, p: of {evaluation.metric}, against the best. "
        "ms, tokens: per query. bytes: per vector."
    )
    note = f"<p><small>{meaning}<br>All: {escape(evaluation.constant)}{legend}</small></p>"
    return f'<div class="wide">{_table(header, rows)}</div>{note}'


def _figures(evaluation: Evaluation) -> list[str]:
    drawn = [plots.quality_against_time(evaluation), plots.quality_against_dimensions(evaluation)]
    for number, candidates in evaluation.candidates.items():
        each = evaluation.measured[number - 1]
        what = "score: P(yes) of the reranker" if each.set_up.reranker else "score: cosine of the vectors"
        if each.set_up.vectors == "binary" and not each.set_up.reranker:
            what = "score: 1 - 2 × share of different bits"
        title = f"Scores of set-up {number}"
        drawn.append(plots.scores(title, what, candidates, evaluation.thresholds.get(number, ())))
    images = [
        f'<figure><img alt="" src="data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"></figure>'
        for svg in drawn
        if svg is not None
    ]
    return [_section("Plots", "".join(images))]


def _thresholds(evaluation: Evaluation) -> list[str]:
    rows = [
        ("", [f"{number} ({evaluation.measured[number - 1].name})", *threshold_cells(each)])
        for number, found in evaluation.thresholds.items()
        for each in found
    ]
    if not rows:
        return []
    header = ["set-up", "asked for", "keep scores from", "95 % interval", "precision", "recall"]
    return [_section("Thresholds", _table(header, rows, left=1))]


def _method(evaluation: Evaluation) -> list[str]:
    servers = ", ".join(
        f"{role} {name} at {address}"
        for role, named in evaluation.servers.items()
        for name, address in named.items()
    )
    return [*in_words(evaluation), f"Servers: {servers}. Seed: {evaluation.seed}."]


class _Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.3f}<br><small>{estimate.low:.3f} to {estimate.high:.3f}</small>"


def _class(evaluation: Evaluation, measured: Measured) -> str:
    if measured is evaluation.recommended:
        return "recommended"
    return "best" if measured is evaluation.best else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], left: int = 2) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=left' if place < left else ''}>{_cell(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    lines = "".join(f'<tr class="{kind}">{cells("td", row)}</tr>' for kind, row in rows)
    return f"<table><thead><tr>{cells('th', header)}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(value: str) -> str:
    return value if isinstance(value, _Markup) else escape(value)
