"""The cheapest set-up that is not significantly worse than the best, in two sentences. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from qwen3_vllm._core.plurals import counted
from qwen3_vllm.evaluation.measures.statistics import Estimate

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Contender:
    """What the verdict knows of a set-up.

    Attributes:
        loss: How much lower its quality is than that of the best, with its interval.
        p_value: Holm's, against the best; None for the best itself.
    """

    name: str
    quality: Estimate
    loss: Estimate
    p_value: float | None
    seconds_per_query: float | None
    bytes_per_vector: int


@dataclass(frozen=True)
class Verdict:
    """The places of two set-ups, and what to say of them.

    Attributes:
        best: The highest mean of the metric; of equal ones the cheapest.
        recommended: The cheapest of those that are not significantly worse.
        difference_shown: Whether any set-up is significantly worse than the best.
        sentences: Two.
    """

    best: int
    recommended: int
    difference_shown: bool
    sentences: tuple[str, str]


def cost(seconds_per_query: float | None, bytes_per_vector: int) -> tuple[float, int]:
    """Order set-ups by cost: time at the servers per query to two significant digits, then bytes per vector.

    A set-up without a measured time counts as slower than any other.
    """
    return (math.inf if seconds_per_query is None else float(f"{seconds_per_query:.1e}")), bytes_per_vector


def best_of(contenders: Sequence[tuple[float, float | None, int]]) -> int:
    """Place of the best among (quality, seconds per query, bytes per vector); of equals the cheapest."""
    return min(
        range(len(contenders)), key=lambda place: (-contenders[place][0], *cost(*contenders[place][1:]))
    )


def decide(contenders: Sequence[Contender], metric: str, queries: int) -> Verdict:
    """Choose among set-ups; the best is the one without a p-value."""
    best = next(place for place, each in enumerate(contenders) if each.p_value is None)
    good = [
        place for place, each in enumerate(contenders) if each.p_value is None or each.p_value >= SIGNIFICANCE
    ]
    recommended = min(
        good,
        key=lambda place: (
            *cost(contenders[place].seconds_per_query, contenders[place].bytes_per_vector),
            -contenders[place].quality.value,
        ),
    )
    difference_shown = len(good) < len(contenders)
    return Verdict(
        best,
        recommended,
        difference_shown,
        _sentences(contenders, best, recommended, len(good), metric, queries),
    )


def _sentences(
    contenders: Sequence[Contender], best: int, recommended: int, good: int, metric: str, queries: int
) -> tuple[str, str]:
    first = f"{_called(contenders, best, metric)} over {counted(queries, 'query')}"
    others = len(contenders) - 1
    if others == 0:
        return f"{first}.", "It is the only set-up, so nothing was compared."
    worse = len(contenders) - good
    costs = _costs(contenders[recommended])
    cheapest = f"{_called(contenders, recommended, metric)}{_less(contenders[recommended], others)}, {costs}"
    if worse == 0:
        none = "the other set-up is not" if others == 1 else f"none of the other {others:,} set-ups is"
        return (
            f"No difference shown: {none} significantly worse than the best, {first}.",
            f"The cheapest is {cheapest}; {_what_more(queries, others)}.",
        )
    shown = f"The best is {first}; {_how_many(worse, others)} significantly worse."
    if good == 1:
        return shown, f"No cheaper set-up remains: it takes {costs}."
    if recommended == best:
        return shown, f"It is also the cheapest of the {good:,} that remain: {costs}."
    return (
        shown,
        f"The cheapest that is not significantly worse is {cheapest} (the best: {_costs(contenders[best])}).",
    )


def _what_more(queries: int, comparisons: int) -> str:
    """Say what to do where nothing was shown; the smallest p-value that so few queries allow is 2 / 2**n."""
    if comparisons * 2.0 ** (1 - queries) >= SIGNIFICANCE:
        return f"{counted(queries, 'query')} cannot show any difference, however large: judge more"
    return "more judged queries may still show a difference"


def _called(contenders: Sequence[Contender], place: int, metric: str) -> str:
    each = contenders[place]
    return f"set-up {place + 1} ({each.name}): {metric} {_quality(each.quality)}"


def _less(contender: Contender, comparisons: int) -> str:
    """Say the loss, and where it is only Holm's correction that does not call it one."""
    if contender.p_value is None:
        return ""
    loss = contender.loss
    less = f", {loss.value:.3f} less than the best ({loss.low:.3f} to {loss.high:.3f}"
    return (
        f"{less}: worse, if it were not one of {comparisons:,} comparisons)" if loss.low > 0 else f"{less})"
    )


def _how_many(worse: int, others: int) -> str:
    if others == 1:
        return "the other set-up is"
    if worse == others:
        return "both other set-ups are" if others == 2 else f"all {others:,} other set-ups are"
    return f"{worse:,} of the other {others:,} set-ups {'is' if worse == 1 else 'are'}"


def _quality(quality: Estimate) -> str:
    return f"{quality.value:.3f} ({quality.low:.3f} to {quality.high:.3f})"


def _costs(contender: Contender) -> str:
    size = f"{contender.bytes_per_vector:,} bytes per vector"
    if contender.seconds_per_query is None:
        return size
    return f"{in_milliseconds(contender.seconds_per_query)} ms per query, {size}"


def in_milliseconds(seconds: float) -> str:
    """Milliseconds to two significant digits, without an exponent."""
    return f"{Decimal(f'{seconds * 1000:.1e}'):,f}"
