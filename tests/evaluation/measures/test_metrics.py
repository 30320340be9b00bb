"""Metrics are those of ir_measures, of rankings and not of scores."""

import warnings

import ir_measures
import numpy as np
import pytest

from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.measures.metrics import DEFAULT_METRICS, depth_of, measure, parse_metrics


def test_metrics_equal_those_of_ir_measures_on_a_handed_run() -> None:
    rng = np.random.default_rng(0)
    queries = [f"q{n}" for n in range(30)]
    judgements = {q: {f"d{d}": int(rng.integers(0, 4)) for d in rng.choice(200, 12, False)} for q in queries}
    rankings = [[f"d{d}" for d in rng.permutation(200)[: rng.integers(0, 150)]] for _ in queries]
    names = [*DEFAULT_METRICS, "AP", "P@5", "RR"]
    measures = parse_metrics(names)

    values = measure(measures, judgements, queries, rankings)

    run = {
        q: {d: 1.0 / (place + 1) for place, d in enumerate(ranking)}
        for q, ranking in zip(queries, rankings, strict=True)
    }
    theirs = ir_measures.calc_aggregate(list(measures.values()), judgements, run)
    assert list(values) == names
    for name, parsed in measures.items():
        assert values[name].mean() == pytest.approx(theirs[parsed], abs=1e-6)


def test_an_order_is_kept_whatever_the_ids() -> None:
    """trec_eval itself would put equal scores into the order of their ids."""
    values = measure(
        parse_metrics(["Success@1", "RR"]), {"q": {"a": 1}}, ["q", "r"], [["a", "b", "z"], ["a"]]
    )
    assert values["Success@1"].tolist() == [1.0, 0.0]
    assert values["RR"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["R@5", "RR(rel=2)@10", "nDCG(dcg='exp-log2')@20", "AP"])
def test_a_name_is_read_as_ir_measures_reads_it(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # ir_measures reads names by what Python 3.14 no longer has
        (measure,) = parse_metrics([name]).values()

    assert measure == eval(name, vars(ir_measures))


@pytest.mark.parametrize(
    "name", ["nDGC@10", "", "nDCG@", "print(1)", "BERTScore@x", "R@5@5", "R(1)", "R@[]", "R(nonsense=1)"]
)
def test_an_unknown_metric_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="nDCG@10"):
        parse_metrics([name])


def test_no_metric_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        parse_metrics([])


def test_a_ranking_is_as_deep_as_its_metrics_look() -> None:
    assert depth_of(parse_metrics(["nDCG@10", "R@1000", "RR"])) == 1000
