"""Plots as SVG text, without a plotting library. Colours follow the reader's scheme, light or dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABELS, _ROW, _TOP = 820, 300, 30, 44
_RIGHT = 130  # room for the figure beside a mark
_LOG_FROM = 30.0  # a greater range than this is drawn on a logarithmic axis

STYLE = """
.chart { font: 13px system-ui, sans-serif; fill: #1d2430; }
.chart .title { font-weight: 600; font-size: 15px; }
.chart .grid { stroke: #d5dae2; }
.chart .tick, .chart .quiet { fill: #5a6575; }
.chart .whisker { stroke: #8a96a8; stroke-width: 2; }
.chart .mark { fill: #7b8798; }
.chart .own { fill: #0b6bcb; }
.chart .dot { fill: #0b6bcb; fill-opacity: .55; }
.chart .wrong { fill: #c2410c; fill-opacity: .6; }
@media (prefers-color-scheme: dark) {
  .chart { fill: #e5e9f0; }
  .chart .grid { stroke: #37404e; }
  .chart .tick, .chart .quiet { fill: #a3adbb; }
  .chart .whisker { stroke: #6d7889; }
  .chart .mark { fill: #94a0b2; }
  .chart .own { fill: #5cb0ff; }
  .chart .dot { fill: #5cb0ff; }
  .chart .wrong { fill: #ff9155; }
}
"""


@dataclass(frozen=True)
class Mark:
    """A line of a range chart: a median between the least and the greatest. `own` is drawn in colour."""

    label: str
    median: float
    low: float
    high: float
    own: bool = False


def range_chart(title: str, marks: Sequence[Mark], unit: str) -> str:
    """Draw medians with their ranges, a line each, logarithmic where they differ much; all values > 0."""
    axis = _Axis.over([value for mark in marks for value in (mark.low, mark.high, mark.median)])
    body = []
    for number, mark in enumerate(marks):
        y = _TOP + _ROW * number + _ROW / 2
        x, low, high = (axis.x(value) for value in (mark.median, mark.low, mark.high))
        figure = f"{_short(mark.median)} {escape(unit)}"
        body.append(
            f'<text x="{_LABELS - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(mark.label)}</text>'
            f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle class="{"own" if mark.own else "mark"}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
            f'<text class="quiet" x="{high + 12:.1f}" y="{y + 4:.1f}">{figure}</text>'
        )
    return _frame(title, axis, body, len(marks))


def strip_chart(title: str, groups: Mapping[str, Sequence[float]], right: str) -> str:
    """Draw each group's values in [0, 1] as dots on a line; all but the group `right` are drawn as wrong."""
    axis = _Axis(0.0, 1.0, logarithmic=False)
    body = []
    for number, (label, values) in enumerate(groups.items()):
        y = _TOP + _ROW * number + _ROW / 2
        kind = "dot" if label == right else "wrong"
        body.append(f'<text x="{_LABELS - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        body += [
            f'<circle class="{kind}" cx="{axis.x(value):.1f}" cy="{y:.1f}" r="6">'
            f"<title>{value:.4f}</title></circle>"
            for value in values
        ]
    return _frame(title, axis, body, len(groups))


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float]) -> "_Axis":
        least, most = min(values), max(values)
        if most / least > _LOG_FROM:
            return cls(10 ** math.floor(math.log10(least)), 10 ** math.ceil(math.log10(most)), True)
        return cls(0.0, most * 1.02, False)

    def x(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return _LABELS + share * (_WIDTH - _LABELS - _RIGHT)

    @property
    def ticks(self) -> list[float]:
        if self.logarithmic:
            decades = round(math.log10(self.high / self.low))
            return [self.low * 10**n for n in range(decades + 1)]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough)
        return [self.low + step * n for n in range(int((self.high - self.low) / step + 1e-9) + 1)]


def _frame(title: str, axis: _Axis, body: Sequence[str], rows: int) -> str:
    bottom = _TOP + _ROW * rows
    grid = "".join(
        f'<line class="grid" x1="{axis.x(tick):.1f}" x2="{axis.x(tick):.1f}" y1="{_TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{axis.x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">'
        f"{_short(tick)}</text>"
        for tick in axis.ticks
    )
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 30}" '
        f'width="{_WIDTH}" height="{bottom + 30}" role="img" aria-label="{escape(title, quote=True)}">'
        f'<text class="title" x="12" y="22">{escape(title)}</text>{grid}{"".join(body)}</svg>'
    )


def alone(*charts: str) -> str:
    """Put charts under each other into one SVG file that brings its colours."""
    placed, y = [], 0
    for chart in charts:
        placed.append(chart.replace("<svg ", f'<svg y="{y}" ', 1))
        y += int(chart.split('height="', 1)[1].split('"', 1)[0])
    ground = (
        "rect.ground { fill: #fff; } @media (prefers-color-scheme: dark) { rect.ground { fill: #14181f; } }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}">'
        f'<style>{STYLE}{ground}</style><rect class="ground" width="100%" height="100%"/>'
        f"{''.join(placed)}</svg>\n"
    )


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
