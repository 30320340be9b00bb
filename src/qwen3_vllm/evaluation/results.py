"""What an evaluation found: plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm.errors import ConfigurationError
from qwen3_vllm.evaluation.measures.statistics import Estimate, bootstrap, paired_randomisation
from qwen3_vllm.evaluation.measures.thresholds import ScoredCandidates, Threshold
from qwen3_vllm.evaluation.measures.verdict import Verdict
from qwen3_vllm.evaluation.set_ups import Part, SetUp, label, letter, varying


@dataclass(frozen=True)
class Measured:
    """What one set-up gave.

    Attributes:
        number: Counts from 1, in the order of the set-ups.
        name: What is its own among the set-ups.
        metrics: By name, with 95 % intervals.
        values: By metric, one for each query.
        loss: How much lower the deciding metric is than that of the best set-up, with its 95 % interval.
        p_value: Of this loss, corrected by Holm; None for the best.
        embed_seconds: Median time of embedding one query.
        rerank_seconds: Median time of scoring one query's candidates; 0 for search alone.
        search_seconds: Time of the exact search in NumPy, of all queries at once, per query.
        tokens_per_query: Tokens that the servers counted for one query; None where they report none.
    """

    number: int
    set_up: SetUp
    name: str
    metrics: Mapping[str, Estimate]
    values: Mapping[str, NDArray[np.float64]]
    loss: Estimate
    p_value: float | None
    embed_seconds: float | None
    rerank_seconds: float | None
    search_seconds: float
    tokens_per_query: float | None

    @property
    def seconds_per_query(self) -> float | None:
        """Time at the servers: embedding the query, and scoring its candidates."""
        if self.embed_seconds is None or self.rerank_seconds is None:
            return None
        return self.embed_seconds + self.rerank_seconds


@dataclass(frozen=True)
class Comparison:
    """The mean of set-up `first` less that of `second`, and its p-value, which nothing corrects."""

    first: int
    second: int
    metric: str
    difference: Estimate
    p_value: float

    def as_json(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """The whole result.

    Attributes:
        metric: The deciding one.
        query_ids: Of the queries that were measured.
        documents: Size of the corpus.
        instructions: In the order of the letters that names call them by.
        servers: Addresses by role ("embedding", "reranker") and name.
        thresholds: By number of a set-up, what was asked for.
        candidates: By number of a set-up, its scores: of the best and the recommended set-up.
        warnings: What is odd about the input, and combinations that were left out.
    """

    metric: str
    query_ids: Sequence[str]
    documents: int
    instructions: Sequence[str]
    servers: Mapping[str, Mapping[str, str]]
    measured: Sequence[Measured]
    verdict: Verdict
    seed: int
    thresholds: Mapping[int, Sequence[Threshold]] = field(default_factory=dict)
    candidates: Mapping[int, ScoredCandidates] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def best(self) -> Measured:
        return self.measured[self.verdict.best]

    @property
    def best_first(self) -> list[Measured]:
        """The set-ups by the deciding metric."""
        return sorted(self.measured, key=lambda each: -each.metrics[self.metric].value)

    @property
    def recommended(self) -> Measured:
        return self.measured[self.verdict.recommended]

    def compare(self, first: int, second: int, metric: str | None = None) -> Comparison:
        """Compare two set-ups by their numbers, in the deciding metric or another one.

        Raises:
            ConfigurationError: There is no such set-up or metric.
        """
        name = metric or self.metric
        for number in (first, second):
            if not 1 <= number <= len(self.measured):
                raise ConfigurationError(f"there is no set-up {number}: they are 1 to {len(self.measured)}")
        if name not in self.measured[0].values:
            raise ConfigurationError(f"{name!r} was not measured; {', '.join(self.measured[0].values)} were")
        differences = self.measured[first - 1].values[name] - self.measured[second - 1].values[name]
        column = differences[:, None]
        (difference,) = bootstrap(column, self.seed)
        return Comparison(first, second, name, difference, float(paired_randomisation(column, self.seed)[0]))

    @property
    def varying(self) -> list[Part]:
        """What differs among the set-ups."""
        return varying([each.set_up for each in self.measured])

    @property
    def constant(self) -> str:
        """What all set-ups share, in words."""
        differ = self.varying
        set_up = self.measured[0].set_up
        words = [] if "dimensions" in differ else [f"{set_up.dimensions} dimensions"]
        if "vectors" not in differ:
            words.append(set_up.vectors)
        if "candidates" not in differ:
            words.append(f"rerank {set_up.candidates}" if set_up.candidates else "search alone")
        if "instruction" not in differ:
            words.append(f"instruction: {set_up.instruction or '(none)'}")
        return ", ".join(words)

    @property
    def legend(self) -> list[str]:
        """Instructions by their letters, if there are several."""
        if "instruction" not in self.varying:
            return []
        return [f"{letter(place)}: {text or '(none)'}" for place, text in enumerate(self.instructions)]

    def as_json(self) -> dict[str, Any]:
        """Everything but single scores, as JSON takes it."""
        return {
            "kind": "evaluation",
            "metric": self.metric,
            "documents": self.documents,
            "query_ids": list(self.query_ids),
            "instructions": list(self.instructions),
            "servers": {role: dict(named) for role, named in self.servers.items()},
            "seed": self.seed,
            "set_ups": [_measured_as_json(each) for each in self.measured],
            "best": self.best.number,
            "recommended": self.recommended.number,
            "difference_shown": self.verdict.difference_shown,
            "verdict": list(self.verdict.sentences),
            "thresholds": {
                str(number): [asdict(each) for each in found] for number, found in self.thresholds.items()
            },
            "warnings": list(self.warnings),
        }


def _measured_as_json(measured: Measured) -> dict[str, Any]:
    return {
        "number": measured.number,
        "name": measured.name,
        "set_up": asdict(measured.set_up),
        "metrics": {name: asdict(estimate) for name, estimate in measured.metrics.items()},
        "loss": asdict(measured.loss),
        "p_value": measured.p_value,
        "seconds_per_query": measured.seconds_per_query,
        "embed_seconds": measured.embed_seconds,
        "rerank_seconds": measured.rerank_seconds,
        "search_seconds": measured.search_seconds,
        "tokens_per_query": measured.tokens_per_query,
        "bytes_per_vector": measured.set_up.bytes_per_vector,
        "values": {name: values.tolist() for name, values in measured.values.items()},
    }


def names_of(set_ups: Sequence[SetUp], instructions: Sequence[str]) -> list[str]:
    """A name for each set-up, of what is its own."""
    parts = varying(set_ups)
    return [label(each, parts, instructions) for each in set_ups]
