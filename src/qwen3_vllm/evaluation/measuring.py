"""From rankings to metrics, p-values, thresholds and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm._core.client import address_of
from qwen3_vllm.evaluation.measures.metrics import measure
from qwen3_vllm.evaluation.measures.statistics import bootstrap, holm, paired_randomisation
from qwen3_vllm.evaluation.measures.thresholds import Goal, ScoredCandidates, find_threshold
from qwen3_vllm.evaluation.measures.verdict import Contender, best_of, decide
from qwen3_vllm.evaluation.results import Evaluation, Measured, names_of
from qwen3_vllm.evaluation.set_ups import SetUp
from qwen3_vllm.evaluation.work import Run


def measure_run(
    run: Run, measures: Mapping[str, Any], goals: Sequence[tuple[Goal, float]], seed: int
) -> Evaluation:
    """Measure what a run found, and choose."""
    deciding = next(iter(measures))
    measured = _measured(run, deciding, _values(run, measures), seed)
    verdict = decide([_contender(each, deciding) for each in measured], deciding, len(run.query_ids))
    chosen = {
        place + 1: _candidates(run, run.set_ups[place]) for place in (verdict.best, verdict.recommended)
    }
    return Evaluation(
        metric=deciding,
        query_ids=run.query_ids,
        documents=len(run.dataset.document_ids),
        instructions=list(run.choices.instructions),
        servers={
            "embedding": {name: address_of(client) for name, client in run.choices.embeddings.items()},
            "reranker": {name: address_of(client) for name, client in run.choices.rerankers.items()},
        },
        measured=measured,
        verdict=verdict,
        seed=seed,
        thresholds={
            number: [find_threshold(found, goal, target, len(run.query_ids), seed) for goal, target in goals]
            for number, found in chosen.items()
            if goals
        },
        candidates=chosen,
        warnings=run.warnings,
    )


def _contender(measured: Measured, metric: str) -> Contender:
    return Contender(
        measured.name,
        measured.metrics[metric],
        measured.loss,
        measured.p_value,
        measured.seconds_per_query,
        measured.set_up.bytes_per_vector,
    )


def _values(run: Run, measures: Mapping[str, Any]) -> list[dict[str, NDArray[np.float64]]]:
    """Each metric of each set-up, for each query."""
    ids = run.dataset.document_ids
    values: list[dict[str, NDArray[np.float64]]] = []
    advance = run.stage("measuring", len(run.set_ups))
    for set_up in run.set_ups:
        ranked = [[ids[place] for place in row] for row in run.ranking_of(set_up).documents]
        values.append(measure(measures, run.dataset.judgements, run.query_ids, ranked))
        advance(1)
    return values


def _measured(
    run: Run, deciding: str, values: Sequence[Mapping[str, NDArray[np.float64]]], seed: int
) -> list[Measured]:
    """Sum up each set-up: means with intervals, what it loses to the best, and what it costs."""
    metrics = list(values[0])
    means = iter(bootstrap(np.stack([each[name] for name in metrics for each in values], axis=1), seed))
    estimates = {name: [next(means) for _ in values] for name in metrics}
    seconds = [run.seconds(set_up) for set_up in run.set_ups]
    totals = [None if a is None or b is None else a + b for a, b in seconds]
    best = best_of(
        [
            (estimate.value, total, set_up.bytes_per_vector)
            for estimate, total, set_up in zip(estimates[deciding], totals, run.set_ups, strict=True)
        ]
    )
    losses = bootstrap(np.stack([values[best][deciding] - each[deciding] for each in values], axis=1), seed)
    p_values = against_best([each[deciding] for each in values], best, seed)
    names = names_of(run.set_ups, run.choices.instructions)
    return [
        Measured(
            number=place + 1,
            set_up=set_up,
            name=names[place],
            metrics={name: estimates[name][place] for name in metrics},
            values=values[place],
            loss=losses[place],
            p_value=p_values[place],
            embed_seconds=seconds[place][0],
            rerank_seconds=seconds[place][1],
            search_seconds=run.search_seconds[set_up.search],
            tokens_per_query=run.tokens(set_up),
        )
        for place, set_up in enumerate(run.set_ups)
    ]


def against_best(values: Sequence[NDArray[np.float64]], best: int, seed: int) -> list[float | None]:
    """Holm-corrected p-values of all set-ups' differences to the best; None for the best itself."""
    others = [place for place in range(len(values)) if place != best]
    if not others:
        return [None]
    differences = np.stack([values[best] - values[place] for place in others], axis=1)
    corrected = dict(zip(others, holm(paired_randomisation(differences, seed).tolist()), strict=True))
    return [corrected.get(place) for place in range(len(values))]


def _candidates(run: Run, set_up: SetUp) -> ScoredCandidates:
    """The scores of what a set-up returns, each with whether it is relevant."""
    ranking = run.ranking_of(set_up)
    ids = run.dataset.document_ids
    relevant = [
        [run.dataset.judgements[query].get(ids[place], 0) > 0 for place in places]
        for query, places in zip(run.query_ids, ranking.documents, strict=True)
    ]
    rows = np.repeat(np.arange(len(run.query_ids)), ranking.documents.shape[1])
    return ScoredCandidates(rows, ranking.scores.ravel(), np.asarray(relevant, np.bool_).ravel())
