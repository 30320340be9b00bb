"""Metrics by ir_measures."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import ir_measures
import numpy as np
from numpy.typing import NDArray

from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.data.dataset import Judgements

DEFAULT_METRICS = ("nDCG@10", "R@10", "R@100", "RR@10", "Success@1")


def parse_metrics(names: Sequence[str]) -> dict[str, Any]:
    """Return measures by the names that ir_measures gives them, in order.

    Raises:
        ConfigurationError: A name that ir_measures does not know, or cannot compute with what is installed.
    """
    measures: dict[str, Any] = {}
    for name in names:
        try:
            measure = _parsed(name)
            supported = ir_measures.DefaultPipeline.supports(measure)  # asserts that its options exist
        except (ValueError, SyntaxError, KeyError, TypeError, AssertionError) as error:
            raise ConfigurationError(
                f"{name!r} is not a metric of ir_measures; use names such as {', '.join(DEFAULT_METRICS)}"
            ) from error
        if not supported:
            raise ConfigurationError(f"ir_measures cannot compute {name} with what is installed here")
        measures[str(measure)] = measure
    if not measures:
        raise ConfigurationError("metrics is empty: list at least one")
    return measures


def _parsed(name: str) -> Any:
    """Read a name such as `RR(rel=2)@10`; ir_measures 0.4.3 reads it by `ast.Num`, which 3.14 lacks."""
    node, options = ast.parse(name, mode="eval").body, {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        options["cutoff"], node = ast.literal_eval(node.right), node.left
    if isinstance(node, ast.Call) and not node.args:
        options |= {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        node = node.func
    if not isinstance(node, ast.Name):
        raise ValueError("not a metric")
    kind = ir_measures.measures.registry[node.id]
    if "cutoff" in options:
        options[kind.AT_PARAM] = options.pop("cutoff")
    return kind(**options)


def depth_of(measures: Mapping[str, Any]) -> int:
    """How many documents of each query the measures look at, at most."""
    return max(int(dict(each.params).get("cutoff") or 0) for each in measures.values())


def measure(
    measures: Mapping[str, Any],
    judgements: Judgements,
    query_ids: Sequence[str],
    rankings: Sequence[Sequence[str]],
) -> dict[str, NDArray[np.float64]]:
    """Measure the ranking of each query; by metric, an array in the order of the queries.

    Args:
        rankings: For each query, ids of documents, best first.
    """
    # Ranks as scores: equal scores would be reordered by id.
    run = {
        query: {document: float(len(ranking) - place) for place, document in enumerate(ranking)}
        for query, ranking in zip(query_ids, rankings, strict=True)
    }
    row_of = {query: row for row, query in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in measures}
    for each in ir_measures.iter_calc(list(measures.values()), judgements, run):
        values[str(each.measure)][row_of[each.query_id]] = each.value
    return values
