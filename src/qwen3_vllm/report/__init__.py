"""A page to look at, from the JSON of a bench or doctor run: one HTML file that needs nothing else."""

from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from qwen3_vllm.errors import InputError
from qwen3_vllm.report.charts import STYLE, Mark, alone, range_chart, strip_chart

_CASES = {
    "documents": ("Documents", "document"),
    "query": ("One query at a time", "query"),
    "rerank": ("One query with 100 documents", "ranking"),
}


def report_html(result: Mapping[str, Any]) -> str:
    """Make the page.

    Args:
        result: What `qwen3-vllm bench --json FILE` or `qwen3-vllm doctor --json` wrote.

    Raises:
        InputError: It is neither.
    """
    kind = result.get("kind") if isinstance(result, Mapping) else None
    if kind not in _PAGES:
        raise InputError('no result of `qwen3-vllm bench` or `doctor`: "kind" is missing or unknown')
    try:
        title, sections = _PAGES[kind](result)
        sections = [*sections, _table("Environment", ("", ""), result["environment"].items())]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"a {kind} result that this version cannot read: {error!r}") from error
    page = Template(files("qwen3_vllm.report").joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(title=escape(title), chart_style=STYLE, sections="\n".join(sections))


def bench_svg(result: Mapping[str, Any]) -> str:
    """Draw a bench result as one SVG file."""
    return alone(*(chart for case in _CASES for chart in _bench_charts(result, case)))


def _bench_page(result: Mapping[str, Any]) -> tuple[str, list[str]]:
    sections = []
    if result["bars"]:

        def in_words(measured: Mapping[str, float]) -> str:
            return f"{measured['median']:.3g} ({measured['low']:.3g} to {measured['high']:.3g})"

        rows = [
            (
                _badge("ok", "met") if bar["met"] else _badge("fail", "missed"),
                bar["name"],
                bar["limit"].replace(" ", "\N{NO-BREAK SPACE}"),
                in_words(bar["measured"]),
            )
            for bar in result["bars"]
        ]
        sections.append(_table("Promises", ("", "what", "bar", "measured, median and range"), rows))
    for case, (name, _) in _CASES.items():
        charts = _bench_charts(result, case)
        if charts:
            figures = "".join(f"<figure>{chart}</figure>" for chart in charts)
            sections.append(f"<section><h2>{escape(name)}</h2>{figures}</section>")
    plan = [(name.replace("_", " "), str(value)) for name, value in result["plan"].items() if value]
    return "Bench of clients", [*sections, _table("Plan", ("", ""), plan)]


def _bench_charts(result: Mapping[str, Any], case: str) -> list[str]:
    rows = [row for row in result["results"] if row["case"] == case]
    if not rows:
        return []
    name, one = _CASES[case]

    def chart(
        title: str, unit: str, figures: Callable[[Mapping[str, Any]], tuple[float, float, float]]
    ) -> str:
        marks = [Mark(row["client"], *figures(row), own="qwen3-vllm" in row["client"]) for row in rows]
        return range_chart(title, marks, unit)

    def spread(key: str) -> Callable[[Mapping[str, Any]], tuple[float, float, float]]:
        return lambda row: (row[key]["median"], row[key]["low"], row[key]["high"])

    def latency(row: Mapping[str, Any]) -> tuple[float, float, float]:
        return row["latency_ms"]["p50"], row["latency_ms"]["p50"], row["latency_ms"]["p99"]

    charts = [
        chart(f"{name}: latency of a call, median to 99th percentile", "ms", latency),
        chart(f"{name}: the client's CPU for a {one}", "µs", spread("cpu_us")),
    ]
    if case == "documents":
        charts.insert(0, chart(f"{name}: throughput", "a second", spread("per_second")))
    return charts


def _doctor_page(result: Mapping[str, Any]) -> tuple[str, list[str]]:
    sections = []
    groups: dict[str, list[tuple[str, ...]]] = {}
    for check in result["checks"]:
        group, _, name = check["name"].partition(".")
        advice = f"{check['seen']}\n→ {check['advice']}" if check["advice"] else check["seen"]
        groups.setdefault(group, []).append((_badge(check["status"]), name, advice))
    for group, rows in groups.items():
        sections.append(_table(group.capitalize(), ("", "check", "seen"), rows))
        for check in result["checks"]:
            if check["name"].startswith(f"{group}.") and check["values"]:
                right = next(iter(check["values"]))
                title = "P(yes) of the same pairs, by how they were sent"
                sections.append(f"<figure>{strip_chart(title, check['values'], right)}</figure>")
    failed = sum(check["status"] == "fail" for check in result["checks"])
    return f"Doctor: {failed or 'no'} failed check{'' if failed == 1 else 's'}", sections


_PAGES: Mapping[Any, Callable[[Mapping[str, Any]], tuple[str, list[str]]]] = {
    "bench": _bench_page,
    "doctor": _doctor_page,
}


class _Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _badge(status: str, word: str | None = None) -> _Markup:
    return _Markup(f'<span class="badge {escape(status, quote=True)}">{escape(word or status)}</span>')


def _table(title: str, columns: tuple[str, ...], rows: Any) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    header = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f"<section><h2>{escape(title)}</h2><table>{header}<tbody>{lines}</tbody></table></section>"


def _cell(cell: str) -> str:
    return cell if isinstance(cell, _Markup) else escape(str(cell))
