"""An evaluation at real servers finds what Transformers finds, in fp32, on the demo checkpoints."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.evaluation import Dataset, Evaluation, evaluate
from qwen3_vllm.serving import ServeOptions

from .conftest import ROOT, Boot, RunningServer, environment
from .reference import INSTRUCTION, ReferenceEmbedding, ReferenceReranker

DEMO = ROOT / "demo"
EMBEDDING, RERANKER = (DEMO / "models" / f"Qwen3-{role}-demo" for role in ("Embedding", "Reranker"))
DOCUMENTS, QUERIES, CANDIDATES = 60, 12, 4
TASK = "Given a question about Python or Debian, find the answer"
METRICS = ["nDCG@10", "R@10", "RR@10", "Success@1"]

Run = Mapping[str, Mapping[str, float]]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def served(boot_for_module: Boot) -> list[RunningServer]:
    """The demo models in float32; left to itself, vLLM would serve them in half precision."""
    return boot_for_module(
        ServeOptions("embedding", str(EMBEDDING), port=0, dtype="float32"),
        ServeOptions("reranker", str(RERANKER), port=0, dtype="float32"),
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rows = lines_of(DEMO / "heldout" / "heldout-en.jsonl")[:DOCUMENTS]
    asked = {f"q{n}": rows[n]["questions"][0] for n in range(0, DOCUMENTS, DOCUMENTS // QUERIES)}
    documents = {f"d{n}": row["text"] for n, row in enumerate(rows)}
    return Dataset.of(documents, asked, {query: {f"d{query[1:]}": 1} for query in asked})


@pytest.fixture(scope="module")
def result(served: list[RunningServer], dataset: Dataset) -> Evaluation:
    return evaluate(
        dataset,
        embeddings=EmbeddingClient(base_url=served[0].base_url),
        rerankers=RerankClient(base_url=served[1].base_url),
        instructions=[INSTRUCTION, TASK],
        dimensions=[256, 64],
        candidates=[0, CANDIDATES],
        metrics=METRICS,
    )


def run_of(dataset: Dataset, scores: np.ndarray) -> Run:
    """Scores by query and document id."""
    return {
        query: dict(zip(dataset.document_ids, row.tolist(), strict=True))
        for query, row in zip(dataset.queries, scores, strict=True)
    }


def reranked(
    dataset: Dataset, cosines: np.ndarray, score: Callable[[str, str, str], float], task: str
) -> Run:
    """The best few of each query, scored by Transformers."""
    assert dataset.texts is not None
    run = {}
    for (id, query), row in zip(dataset.queries.items(), cosines, strict=True):
        best = np.argsort(-row, kind="stable")[:CANDIDATES]
        run[id] = {dataset.document_ids[place]: score(query, dataset.texts[place], task) for place in best}
    return run


def test_metrics_are_those_of_transformers(result: Evaluation, dataset: Dataset) -> None:
    embedding, reranker = ReferenceEmbedding(EMBEDDING), ReferenceReranker(RERANKER)
    score = cache(lambda query, text, task: float(reranker.scores(query, [text], task)[0]))
    assert dataset.texts is not None
    documents = embedding.documents(dataset.texts)
    asked = {task: embedding.queries(list(dataset.queries.values()), task) for task in (INSTRUCTION, TASK)}
    measures = [ir_measures.parse_measure(name) for name in METRICS]

    def cosines(task: str, dimensions: int) -> np.ndarray:
        short = [vectors[:, :dimensions] for vectors in (asked[task], documents)]
        left, right = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in short)
        return left @ right.T

    assert len(result.measured) == 8
    for each in result.measured:
        found = cosines(each.set_up.instruction, each.set_up.dimensions)
        run = (
            reranked(dataset, found, score, each.set_up.instruction)
            if each.set_up.candidates
            else run_of(dataset, found)
        )
        expected = ir_measures.calc_aggregate(measures, dataset.judgements, run)
        for measure in measures:
            assert each.metrics[str(measure)].value == pytest.approx(expected[measure], abs=1e-6), each.name


def test_the_demo_models_find_answers_and_a_verdict_is_given(result: Evaluation) -> None:
    assert result.best.metrics["nDCG@10"].value > 0.5
    assert len(result.verdict.sentences) == 2
    assert all(each.seconds_per_query for each in result.measured)


def test_scores_lie_apart_enough_for_a_threshold(served: list[RunningServer], dataset: Dataset) -> None:
    found = evaluate(
        dataset,
        embeddings=EmbeddingClient(base_url=served[0].base_url),
        rerankers=RerankClient(base_url=served[1].base_url),
        candidates=[CANDIDATES],
        recall=0.8,
    )
    (threshold,) = found.thresholds[1]
    assert threshold.score is not None
    assert 0 < threshold.score < 1
    assert threshold.recall >= 0.8


def example(name: str, served: list[RunningServer], python: str = sys.executable) -> str:
    """Run an example as its docstring says; returns what it printed."""
    addresses = {"QWEN3_EMBEDDING_URL": served[0].base_url, "QWEN3_RERANKER_URL": served[1].base_url}
    done = subprocess.run(
        [python, str(ROOT / "examples" / name)],
        env={**os.environ, **addresses, "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def theirs(reference: ReferenceEmbedding, task: str, *names: str) -> list[float]:
    """Metrics of what Transformers finds for the demo's questions."""
    passages, questions = lines_of(DEMO / "corpus.jsonl"), lines_of(DEMO / "queries.jsonl")
    documents = reference.documents([row["text"] for row in passages])
    cosines = reference.queries([row["query"] for row in questions], task) @ documents.T
    run = {
        str(number): {row["id"]: float(cosine) for row, cosine in zip(passages, of_query, strict=True)}
        for number, of_query in enumerate(cosines)
    }
    judgements = {str(number): dict.fromkeys(row["relevant"], 1) for number, row in enumerate(questions)}
    measures = [ir_measures.parse_measure(name) for name in names]
    found = ir_measures.calc_aggregate(measures, judgements, run)
    return [found[measure] for measure in measures]


def numbers(printed: str, line: str) -> list[float]:
    (found,) = re.findall(rf"^{line} .*$", printed, re.MULTILINE)
    return [float(number) for number in re.findall(r"\b\d\.\d{4}\b", found)]


def test_llama_indexs_evaluator_prints_what_transformers_finds(served: list[RunningServer]) -> None:
    printed = example("llama_index_evaluation.py", served)

    hits, reciprocal_rank = theirs(ReferenceEmbedding(EMBEDDING), INSTRUCTION, "Success@3", "RR@3")
    assert numbers(printed, "search alone")[:2] == pytest.approx([hits, reciprocal_rank], abs=1e-4)
    assert numbers(printed, "reranked")[0] >= hits


@pytest.mark.nightly  # installs mteb, with what it needs, into an environment of its own
@pytest.mark.timeout(900)
def test_mteb_prints_what_transformers_finds(served: list[RunningServer], tmp_path: Path) -> None:
    python = environment(tmp_path, "mteb>=2")

    printed = example("mteb_local_task.py", served, python)

    task = "Given a question, retrieve passages that answer it"
    expected = theirs(ReferenceEmbedding(EMBEDDING), task, "nDCG@10", "R@10")
    assert numbers(printed, "search alone") == pytest.approx(expected, abs=1e-4)
    assert len(numbers(printed, "reranked")) == 2
