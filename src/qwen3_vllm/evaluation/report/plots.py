"""Plots of an evaluation as SVG. Set-ups go by their numbers, so that no font lacks a letter."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.measures.thresholds import ScoredCandidates, Threshold
from qwen3_vllm.evaluation.results import Evaluation, Measured
from qwen3_vllm.evaluation.set_ups import label

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as error:
    raise ConfigurationError(
        "the HTML report needs matplotlib: pip install 'qwen3-vllm[evaluation]'"
    ) from error

_BEST, _RECOMMENDED, _OTHER = "#c2410c", "#0b6bcb", "#8a96a8"
_LOG_FROM = 20.0  # a greater range of times is drawn on a logarithmic axis
_BINS = 40
_LINES = ("-", "--", ":")


def quality_against_time(evaluation: Evaluation) -> str | None:
    """Draw each set-up's quality, with its interval, over its time per query; None where no time is known."""
    timed = [(each.seconds_per_query, each) for each in evaluation.measured]
    points = [(1000 * seconds, each) for seconds, each in timed if seconds]
    if not points:
        return None
    figure, axes = _axes(f"{evaluation.metric} against time per query")
    for milliseconds, each in points:
        colour = _colour(evaluation, each)
        quality = each.metrics[evaluation.metric]
        axes.plot([milliseconds] * 2, [quality.low, quality.high], color=colour, linewidth=1, alpha=0.5)
        axes.plot(milliseconds, quality.value, "o", color=colour, zorder=3)
        if colour != _OTHER or _is_ahead(evaluation.metric, milliseconds, each, points):
            axes.annotate(
                str(each.number),
                (milliseconds, quality.value),
                xytext=(6, 3),
                textcoords="offset points",
                fontsize=8,
                color=colour if colour != _OTHER else "#5a6575",
            )
    times = [milliseconds for milliseconds, _ in points]
    if max(times) / min(times) > _LOG_FROM:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel("ms per query at the servers: embedding the query, and scoring its candidates")
    _mark_chosen(evaluation, axes)
    return _svg(figure)


def quality_against_dimensions(evaluation: Evaluation) -> str | None:
    """Draw quality over dimensions, a line for what is else alike; None where dimensions do not differ."""
    if "dimensions" not in evaluation.varying:
        return None
    parts = [name for name in evaluation.varying if name != "dimensions"]
    lines: dict[str, list[Measured]] = {}
    for each in evaluation.measured:
        name = label(each.set_up, parts, evaluation.instructions) if parts else evaluation.metric
        lines.setdefault(name, []).append(each)
    figure, axes = _axes(f"{evaluation.metric} against dimensions", legend_lines=len(lines))
    kinds = list(dict.fromkeys(each.set_up.vectors for each in evaluation.measured))
    families = list(dict.fromkeys(_family(line[0]) for line in lines.values()))
    for name, line in lines.items():
        ordered = sorted(line, key=lambda each: each.set_up.dimensions)
        axes.plot(
            [each.set_up.dimensions for each in ordered],
            [each.metrics[evaluation.metric].value for each in ordered],
            _LINES[kinds.index(line[0].set_up.vectors)],
            marker="o",
            markersize=4,
            color=matplotlib.colormaps["tab10"](families.index(_family(line[0])) % 10),
            label=name,
        )
    sizes = sorted({each.set_up.dimensions for each in evaluation.measured})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("dimensions")
    if parts:
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False)
    return _svg(figure)


def scores(title: str, what: str, candidates: ScoredCandidates, thresholds: Sequence[Threshold]) -> str:
    """Draw how the scores of relevant and of other candidates spread, with thresholds."""
    figure, axes = _axes(title)
    lowest, highest = float(candidates.score.min()), float(candidates.score.max())
    edges = np.linspace(min(lowest, 0.0), max(highest, 1.0), _BINS + 1)
    groups: Mapping[str, Any] = {
        "relevant": (candidates.relevant, _RECOMMENDED),
        "not relevant, or not judged": (~candidates.relevant, _BEST),
    }
    for name, (chosen, colour) in groups.items():
        values = candidates.score[chosen]
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            called = f"{name} ({len(values):,})"
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.45, label=called)
    found = sorted(
        (each.score, f"{each.goal} {each.target:g}") for each in thresholds if each.score is not None
    )
    for number, (score, goal) in enumerate(found):
        left = number == 0  # two may lie close
        axes.axvline(score, color="#1d2430", linewidth=1, linestyle="--")
        axes.annotate(
            goal,
            (score, axes.get_ylim()[1]),
            xytext=(-3 if left else 3, -4),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="right" if left else "left",
            fontsize=8,
        )
    axes.set_xlabel(what)
    axes.set_ylabel("share of each group")
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def _is_ahead(
    metric: str, milliseconds: float, measured: Measured, points: Sequence[tuple[float, Measured]]
) -> bool:
    """Whether nothing as fast is better; numbers beside all points would cover each other."""
    quality = measured.metrics[metric].value
    return not any(
        other <= milliseconds and each.metrics[metric].value >= quality and each is not measured
        for other, each in points
    )


def _family(measured: Measured) -> tuple[object, ...]:
    """What gives a line its colour; its dashes tell the kind of vectors."""
    set_up = measured.set_up
    return set_up.embedding, set_up.instruction, set_up.reranker, set_up.candidates


def _colour(evaluation: Evaluation, measured: Measured) -> str:
    if measured is evaluation.recommended:
        return _RECOMMENDED
    return _BEST if measured is evaluation.best else _OTHER


def _mark_chosen(evaluation: Evaluation, axes: Any) -> None:
    axes.set_ylabel(f"{evaluation.metric}, mean and 95 % interval")
    best, recommended = evaluation.best, evaluation.recommended
    if best is recommended:
        axes.plot([], [], "o", color=_RECOMMENDED, label=f"best, and cheapest ({best.number})")
    else:
        axes.plot([], [], "o", color=_BEST, label=f"best ({best.number})")
        axes.plot(
            [], [], "o", color=_RECOMMENDED, label=f"cheapest not shown to be worse ({recommended.number})"
        )
    axes.legend(fontsize=8, frameon=False)


def _axes(title: str, legend_lines: int = 0) -> tuple[Any, Any]:
    figure = Figure(figsize=(8.6, max(4.2, 0.2 * legend_lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.grid(color="#e3e7ed", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    content = io.StringIO()
    # The same evaluation gives the same bytes: no date, and ids from a fixed salt.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "qwen3-vllm"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
