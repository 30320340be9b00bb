"""Numbers of an evaluation as a person reads them, on a page or a terminal. Pure."""

from qwen3_vllm._core.plurals import counted
from qwen3_vllm.evaluation.measures.statistics import RESAMPLES
from qwen3_vllm.evaluation.measures.thresholds import Threshold
from qwen3_vllm.evaluation.measures.verdict import in_milliseconds
from qwen3_vllm.evaluation.results import Evaluation, Measured

UNKNOWN = "–"


def p_value(measured: Measured) -> str:
    """The p-value against the best set-up; "best" for that one."""
    if measured.p_value is None:
        return "best"
    return "<0.001" if measured.p_value < 0.001 else f"{measured.p_value:.3f}"


def loss(measured: Measured) -> str:
    """How much less than the best set-up it gives: the interval."""
    return "" if measured.p_value is None else f"{measured.loss.low:.3f} to {measured.loss.high:.3f}"


def costs_of(evaluation: Evaluation, measured: Measured) -> dict[str, str]:
    """Costs by the names of their columns; tokens only if a server reports any."""
    tokens = UNKNOWN if measured.tokens_per_query is None else f"{measured.tokens_per_query:,.0f}"
    reported = any(each.tokens_per_query is not None for each in evaluation.measured)
    return {
        "ms": milliseconds(measured.seconds_per_query),
        "embed ms": milliseconds(measured.embed_seconds),
        "search ms": milliseconds(measured.search_seconds),
        **({"tokens": tokens} if reported else {}),
        "bytes": f"{measured.set_up.bytes_per_vector:,}",
    }


def milliseconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else in_milliseconds(seconds)


def threshold_cells(threshold: Threshold) -> list[str]:
    """What was asked for, the score, its interval, and the precision and recall that it gives."""
    asked = f"{threshold.goal} {threshold.target:g}"
    if threshold.score is None:
        return [
            asked,
            "not reached",
            UNKNOWN,
            f"{threshold.precision:.3f} at best",
            f"{threshold.recall:.3f}",
        ]
    low = UNKNOWN if threshold.low is None else f"{threshold.low:.3f}"
    high = "not reached" if threshold.high is None else f"{threshold.high:.3f}"
    return [
        asked,
        f"{threshold.score:.4f}",
        f"{low} to {high}",
        f"{threshold.precision:.3f}",
        f"{threshold.recall:.3f}",
    ]


def in_words(evaluation: Evaluation) -> list[str]:
    """How it was measured, a line for each kind of number."""
    return [
        f"Intervals: 95 %, bootstrap over {counted(len(evaluation.query_ids), 'query')}, "
        f"{RESAMPLES:,} resamples. "
        f"p: paired randomisation of {evaluation.metric} against the best set-up, corrected for the number "
        "of set-ups by Holm; the intervals of the loss are not corrected.",
        "Documents that nobody judged count as not relevant.",
        "ms per query: median of calls with one query each, one after another, that the servers had not "
        "seen before: embedding it, and scoring its candidates. search ms: exact search of all queries at "
        "once in NumPy on this machine, per query; a vector database's index takes another time.",
        "Cheapest: fewest ms per query, to two significant digits; then fewest bytes per vector.",
    ]
