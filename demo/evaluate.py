"""Score the demo checkpoints, served by vLLM and asked by this package's clients, on held-out questions.

    python -m demo.evaluate

It boots one server after the other. `--models DIR` scores other checkpoints of the same names. On a CPU the
embedding model takes a minute, the reranker seconds per question and template: `--questions` and `--wrong`
bound them, `--language` leaves one out.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests

from demo.training import metrics
from demo.training.corpus import read_heldout
from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core import prompts
from qwen3_vllm.serving import ServeOptions, start_server

LANGUAGES = ("en", "zh")
DEMO = Path(__file__).resolve().parent
MODELS = DEMO / "models"
SIZES = (256, 128, 64, 32)
TOP = 20
BOOT_SECONDS = 300
SEED = 0

Ranking = list[int]
Score = Callable[[str, Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Language:
    """Held-out paragraphs, and questions with the index of the paragraph that answers each."""

    name: str
    paragraphs: list[str]
    questions: list[tuple[str, int]]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of both checkpoints")
    parser.add_argument("--language", choices=LANGUAGES, help="one language only")
    parser.add_argument("--questions", type=int, default=200, help="questions per language to rerank for")
    parser.add_argument("--wrong", type=int, default=40, help="how many of them with wrong templates, too")
    options = parser.parse_args()
    names = [options.language] if options.language else LANGUAGES
    languages = [Language(name, *read_heldout(DEMO / "heldout" / f"heldout-{name}.jsonl")) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "vllm.log"
        embedding = ServeOptions("embedding", str(options.models / "Qwen3-Embedding-demo"), port=0)
        with start_server(embedding, log_path=log_path, timeout=BOOT_SECONDS) as server:
            rankings = {language.name: retrieve(server.base_url, language) for language in languages}
        # Without a server template, a client may send any prompt: the right one, and wrong ones to compare.
        reranker = ServeOptions(
            "reranker", str(options.models / "Qwen3-Reranker-demo"), port=0, chat_template=False
        )
        with start_server(reranker, log_path=log_path, timeout=BOOT_SECONDS) as server:
            for language in languages:
                sample = random.Random(SEED).sample(range(len(language.questions)), options.questions)
                rerank(server.base_url, language, rankings[language.name], sample, options.wrong)


def retrieve(base_url: str, language: Language) -> list[Ranking]:
    """Print the retrieval scores at each size; return the rankings at full size."""
    client = EmbeddingClient(base_url=base_url)
    asked = client.embed_queries([question for question, _ in language.questions])
    found = client.embed_documents(language.paragraphs)
    answers = [answer for _, answer in language.questions]
    full: list[Ranking] = []
    for size in SIZES:
        likeness = _unit(asked[:, :size]) @ _unit(found[:, :size]).T
        rankings: list[Ranking] = np.argsort(-likeness, axis=1, kind="stable").tolist()
        full = full or rankings
        title = f"{language.name}: {len(answers)} questions, {len(found)} paragraphs, {size} dimensions"
        print(f"{title:55} {_scores(rankings, answers)}", flush=True)
    return full


def rerank(
    base_url: str, language: Language, rankings: list[Ranking], sample: Sequence[int], wrong: int
) -> None:
    """Print scores of the first 20 before and after reranking; for `wrong` questions, of each template."""
    right, *others = templates(base_url).items()
    reranked = _compare(language, rankings, sample, dict([right]))
    if wrong:
        known = {name: found[:wrong] for name, found in reranked.items()}
        _compare(language, rankings, sample[:wrong], dict(others), known)


def _compare(
    language: Language,
    rankings: list[Ranking],
    sample: Sequence[int],
    ways: dict[str, Score],
    known: dict[str, list[Ranking]] | None = None,
) -> dict[str, list[Ranking]]:
    """Print the scores of the first 20 as retrieved, as `known`, and reranked in each of the `ways`."""
    answers = [language.questions[row][1] for row in sample]
    firsts = [rankings[row][:TOP] for row in sample]
    print(f"{language.name}: the first {TOP} paragraphs of {len(sample)} questions")
    for name, found in {"as retrieved": firsts, **(known or {})}.items():
        print(f"  {name:30} {_scores(found, answers)}", flush=True)
    reranked: dict[str, list[Ranking]] = {}
    for name, score in ways.items():
        reranked[name] = []
        for row, first in zip(sample, firsts, strict=True):
            relevance = score(language.questions[row][0], [language.paragraphs[index] for index in first])
            order = np.argsort(-np.asarray(relevance), kind="stable")
            reranked[name].append([first[place] for place in order])
        print(f"  {name:30} {_scores(reranked[name], answers)}", flush=True)
    return reranked


def templates(base_url: str) -> dict[str, Score]:
    """Return ways to score documents for a query: our client's, and three common mistakes."""
    client = RerankClient(base_url=base_url)
    session = requests.Session()

    def send(query: str, documents: Sequence[str]) -> Sequence[float]:
        body = {"text_1": query, "text_2": list(documents)}
        answer = session.post(f"{base_url}/score", json=body, timeout=300)
        answer.raise_for_status()
        return [row["score"] for row in sorted(answer.json()["data"], key=lambda row: row["index"])]

    def head(query: str) -> str:
        return prompts.rerank_head(query, prompts.DEFAULT_INSTRUCTION)

    return {
        "right template (RerankClient)": lambda query, documents: client.score(query, documents).tolist(),
        "newline after query missing": lambda query, documents: send(
            head(query).removesuffix("\n"), [prompts.rerank_tail(document) for document in documents]
        ),
        "suffix truncated": lambda query, documents: send(
            head(query), [f"<Document>: {document}" for document in documents]
        ),
        "raw pair": send,
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _scores(rankings: Sequence[Ranking], answers: Sequence[int]) -> str:
    ranks = [metrics.rank_of(answer, ranking) for answer, ranking in zip(answers, rankings, strict=True)]
    return f"recall@10 {metrics.recall(ranks):.3f}  nDCG@10 {metrics.ndcg(ranks):.3f}"


if __name__ == "__main__":
    main()
