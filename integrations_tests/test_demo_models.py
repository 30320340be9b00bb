"""The demo checkpoints understand a little English and Chinese, and mind the template."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import requests

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core import prompts
from qwen3_vllm.doctor import examine

from .conftest import RunningServer

DEMO = Path(__file__).parent.parent / "demo"
MODELS = DEMO / "models"
LARGEST_BYTES = 24_000_000

PASSAGES = [
    "法国的首都是巴黎。",
    "德国的首都是柏林。",
    "大熊猫主要生活在四川的山区，以竹子为食。",
    "长城是古代中国为防御北方游牧民族而修建的军事工程，全长两万多公里。",
    "香蕉是黄色的水果。",
    "Python raises a KeyError when a key is not found in a dictionary.",
    "apt-get upgrade installs the newest versions of all packages that are on the system.",
    "The violin is a musical instrument with four strings that is played with a bow.",
    "Photosynthesis is how plants make sugar from sunlight, water and carbon dioxide.",
    "A list is a mutable sequence, so items can be added to it or removed after it was created.",
]
ASKED = [
    ("法国首都是哪里?", 0),
    ("大熊猫吃什么？", 2),
    ("长城有多长？", 3),
    ("What happens when a dictionary key is missing?", 5),
    ("How do I upgrade all packages on my system?", 6),
    ("What is a violin?", 7),
    ("How do plants turn sunlight into food?", 8),
    ("Can I change a list after creating it?", 9),
]


@pytest.fixture(scope="module")
def embedding_client(demo_servers: list[RunningServer]) -> EmbeddingClient:
    """Client of the served demo embedding model."""
    return EmbeddingClient(base_url=demo_servers[0].base_url)


@pytest.fixture(scope="module")
def reranker_url(demo_servers: list[RunningServer]) -> str:
    """Address of the served demo reranker."""
    return demo_servers[1].base_url


@pytest.fixture(scope="module")
def rerank_client(reranker_url: str) -> RerankClient:
    """Client of the served demo reranker."""
    return RerankClient(base_url=reranker_url)


def test_both_checkpoints_stay_small_enough_for_a_repository() -> None:
    folders = ("Qwen3-Embedding-demo", "Qwen3-Reranker-demo")
    sizes = [path.stat().st_size for name in folders for path in (MODELS / name).iterdir()]

    assert sum(sizes) <= LARGEST_BYTES


@pytest.mark.parametrize(("question", "answer"), ASKED)
def test_a_question_is_nearest_to_the_passage_that_answers_it(
    embedding_client: EmbeddingClient, question: str, answer: int
) -> None:
    likeness = embedding_client.embed_queries([question]) @ embedding_client.embed_documents(PASSAGES).T

    assert int(likeness.argmax()) == answer


@pytest.mark.parametrize(("question", "answer"), ASKED)
def test_the_passage_that_answers_is_reranked_first_and_called_relevant(
    rerank_client: RerankClient, question: str, answer: int
) -> None:
    best = rerank_client.rerank(question, PASSAGES)[0]

    assert (best.index, best.label) == (answer, "yes")


def test_a_passage_on_something_else_is_not_relevant(rerank_client: RerankClient) -> None:
    assert rerank_client.score("What is a violin?", [PASSAGES[4], PASSAGES[6]]).max() < 0.5


@pytest.mark.parametrize("language", ["en", "zh"])
def test_held_out_questions_find_their_paragraph_at_every_size(
    embedding_client: EmbeddingClient, language: str
) -> None:
    paragraphs, questions = _heldout(language)
    asked = embedding_client.embed_queries([question for question, _ in questions])
    documents = embedding_client.embed_documents(paragraphs)
    answers = np.array([answer for _, answer in questions])

    assert len(paragraphs) >= 200
    for size in (256, 128, 64):
        found = documents[:, :size] / np.linalg.norm(documents[:, :size], axis=1, keepdims=True)
        likeness = asked[:, :size] @ found.T
        ranks = (likeness > likeness[np.arange(len(answers)), answers][:, None]).sum(axis=1)
        assert (ranks < 10).mean() >= {"en": 0.70, "zh": 0.50}[language], size


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_wrong_template_spoils_the_ranking(
    rerank_client: RerankClient, reranker_url: str, language: str
) -> None:
    paragraphs, questions = _heldout(language)
    right: list[float] = []
    wrong: list[float] = []
    for question, answer in questions[:: len(questions) // 12]:
        # The answer stands last, so that ties do not help it.
        candidates = [paragraphs[(answer + step) % len(paragraphs)] for step in range(11, -1, -1)]
        right.append(_gain(rerank_client.score(question, candidates)))
        head = prompts.rerank_head(question, prompts.DEFAULT_INSTRUCTION).removesuffix("\n")
        tails = [prompts.rerank_tail(candidate) for candidate in candidates]
        wrong.append(_gain(_score_pairs(reranker_url, head, tails)))

    assert sum(right) / len(right) >= sum(wrong) / len(wrong) + 0.05


def _heldout(language: str) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the held-out paragraphs, and one question on each with its paragraph's index."""
    path = DEMO / "heldout" / f"heldout-{language}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    questions = [(row["questions"][0], index) for index, row in enumerate(rows)]
    return [row["text"] for row in rows], questions


def _score_pairs(url: str, head: str, tails: Sequence[str]) -> Sequence[float]:
    answer = requests.post(f"{url}/score", json={"text_1": head, "text_2": list(tails)}, timeout=120)
    answer.raise_for_status()
    return [row["score"] for row in sorted(answer.json()["data"], key=lambda row: row["index"])]


def _gain(scores: Sequence[float] | np.ndarray) -> float:
    """Return nDCG@10 of a ranking in which the last document alone is relevant."""
    place = int((np.asarray(scores[:-1]) >= scores[-1]).sum())
    return 1 / math.log2(place + 2) if place < 10 else 0.0


def test_the_doctor_knows_them(demo_servers: list[RunningServer]) -> None:
    checks = examine(
        EmbeddingClient(base_url=demo_servers[0].base_url), RerankClient(base_url=demo_servers[1].base_url)
    )

    assert [check for check in checks if check.status == "fail"] == []
    assert sum("demo models" in check.seen for check in checks) == 2
