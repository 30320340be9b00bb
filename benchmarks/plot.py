"""A run as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import CASES, Result, Series, Spread, spread

_OWN, _OTHER = "#0b6bcb", "#7b8798"
_LOG_FROM = 30.0  # a larger range than this is drawn on a logarithmic axis


def draw(result: Result, file: Path) -> None:
    """Draw throughput, latency and CPU of every client; the ending of `file` says the format."""
    cases = [(case, result.of(case)) for case in CASES if result.of(case)]
    heights = [len(series) for _, series in cases]
    figure = Figure(figsize=(15, 1.2 * len(cases) + 0.32 * sum(heights)), layout="constrained")
    rows = figure.subplots(len(cases), 3, squeeze=False, height_ratios=heights)
    for (case, series), (speed, latency, cpu) in zip(cases, rows, strict=True):
        one, many = CASES[case]
        _ranges(speed, f"{many} per second", series, [spread(each.per_second) for each in series])
        _ranges(
            latency, "ms per call, median to 99th percentile", series, [_latency(each) for each in series]
        )
        _ranges(cpu, f"CPU µs per {one}", series, [spread(each.cpu_us) for each in series])
        for axes in (latency, cpu):
            axes.set_yticklabels([])
    figure.savefig(file)


def _latency(series: Series) -> Spread:
    median = series.latency_ms(50)
    return Spread(median, median, series.latency_ms(99))


def _ranges(axes: Axes, title: str, series: Sequence[Series], spreads: Sequence[Spread]) -> None:
    """Draw medians with their ranges, a line each, the first on top."""
    for height, (each, measured) in enumerate(zip(series, spreads, strict=True)):
        colour = _OWN if "qwen3-vllm" in each.client else _OTHER
        axes.plot([measured.low, measured.high], [height, height], color=_OTHER, linewidth=2)
        axes.plot(measured.median, height, "o", color=colour)
        beside: dict[str, Any] = {"textcoords": "offset points", "xytext": (8, -4), "color": _OTHER}
        axes.annotate(_short(measured.median), (measured.high, height), **beside)
    axes.set_yticks(range(len(series)), [each.client for each in series])
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    lows, highs = [s.low for s in spreads], [s.high for s in spreads]
    if max(highs) > _LOG_FROM * min(lows) > 0:
        axes.set_xscale("log")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
