"""Every example, run as its docstring says, on real servers; Transformers checks what it prints."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from qwen3_vllm.serving.machine.ports import free_port

from .conftest import ROOT, RunningServer
from .reference import ReferenceEmbedding, ReferenceReranker

EXAMPLES = ROOT / "examples"
CORPUS = ROOT / "demo" / "corpus.jsonl"
PASSAGES = {
    row["id"]: row["text"] for row in map(json.loads, CORPUS.read_text(encoding="utf-8").splitlines())
}
TEXTS = list(PASSAGES.values())
CANDIDATES, KEPT = 20, 3
MOON = "为什么我们看不到月亮的背面？"
# Search 20 of the corpus, keep 3; the question each asks, or is asked.
TWO_STAGES = {
    "langchain_with_faiss.py": MOON,
    "langchain_with_milvus.py": "地震来了应该躲在哪里？",
    "llama_index_query_engine.py": "怎样修改刚刚做的提交？",
    "haystack_pipeline.py": "怎样让平底锅不粘？",
}
# A score is printed with four decimals, and the server computes as Transformers does, within 1e-5.
CLOSE = 2e-4

Example = tuple[RunningServer, RunningServer]


@pytest.fixture
def servers(embedding_server: RunningServer, reranker_server: RunningServer) -> Example:
    return embedding_server, reranker_server


def run(name: str, servers: Example, folder: Path, *arguments: str) -> str:
    """Run an example in a folder of its own; returns what it printed."""
    embedding, reranker = servers
    environment = {
        **os.environ,
        "QWEN3_EMBEDDING_URL": embedding.base_url,
        "QWEN3_RERANKER_URL": f"{reranker.base_url}/v1",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scored(printed: str) -> list[tuple[float, str]]:
    """The lines `0.1234  text`."""
    lines = (re.fullmatch(r"(\d\.\d{4})  (.*?)(?:  \[.*\])?", line) for line in printed.splitlines())
    return [(float(line[1]), line[2]) for line in lines if line]


def best(
    question: str, embedding_reference: ReferenceEmbedding, reranker_reference: ReferenceReranker
) -> list[str]:
    """What Transformers would print."""
    similarity = embedding_reference.documents(TEXTS) @ embedding_reference.queries([question])[0]
    candidates = [TEXTS[place] for place in np.argsort(-similarity)[:CANDIDATES]]
    scores = reranker_reference.scores(question, candidates)
    return [candidates[place] for place in np.argsort(-scores)[:KEPT]]


@pytest.mark.parametrize("name", TWO_STAGES)
def test_search_and_rerank(
    name: str,
    servers: Example,
    embedding_reference: ReferenceEmbedding,
    reranker_reference: ReferenceReranker,
    tmp_path: Path,
) -> None:
    question = TWO_STAGES[name]
    arguments = [question] if name == "langchain_with_faiss.py" else []

    printed = scored(run(name, servers, tmp_path, *arguments))

    texts = [text for _, text in printed]
    assert texts == best(question, embedding_reference, reranker_reference)
    np.testing.assert_allclose(
        [score for score, _ in printed], reranker_reference.scores(question, texts), atol=CLOSE
    )


def test_rag_chain_gives_the_llm_the_best_passages(
    servers: Example,
    embedding_reference: ReferenceEmbedding,
    reranker_reference: ReferenceReranker,
    tmp_path: Path,
) -> None:
    prompt = run("rag_chain.py", servers, tmp_path)
    quoted = [PASSAGES[name] for name in re.findall(r"^\[(.+?)\]", prompt, re.MULTILINE)]
    assert quoted == best(MOON, embedding_reference, reranker_reference)
    assert all(text in prompt for text in [*quoted, MOON])


def test_hybrid_search_reranks_what_both_found(
    servers: Example, reranker_reference: ReferenceReranker, tmp_path: Path
) -> None:
    printed = run("hybrid_bm25.py", servers, tmp_path)
    found = scored(printed)
    question = "How is a password kept safe on a server?"
    expected = reranker_reference.scores(question, [text for _, text in found])
    np.testing.assert_allclose([score for score, _ in found], expected, atol=CLOSE)
    assert len(found) == KEPT
    assert found == sorted(found, reverse=True)
    assert len(re.findall(r"\[(BM25|embeddings|BM25 and embeddings)\]$", printed, re.MULTILINE)) == KEPT


def test_multi_query_ranks_each_passage_once(
    servers: Example, reranker_reference: ReferenceReranker, tmp_path: Path
) -> None:
    printed = run("multi_query.py", servers, tmp_path)
    found = scored(printed)
    question = "How do I keep food from sticking to an iron skillet?"
    expected = reranker_reference.scores(question, [text for _, text in found])
    np.testing.assert_allclose([score for score, _ in found], expected, atol=CLOSE)
    assert len({text for _, text in found}) == KEPT
    count = int(re.findall(r"^(\d+) passages found", printed)[0])
    assert 10 <= count <= 30


def test_clients_of_cohere_and_openai_get_the_same_as_ours(
    embedding_server: RunningServer,
    templated_reranker_server: RunningServer,
    embedding_reference: ReferenceEmbedding,
    reranker_reference: ReferenceReranker,
    tmp_path: Path,
) -> None:
    printed = run("cohere_and_openai.py", (embedding_server, templated_reranker_server), tmp_path)
    query, documents = "法国的首都是哪里？", ["中国的首都是北京。", "法国的首都是巴黎。"]
    cosines = re.findall(r"^cosine (\S+) (\S+)  (.+)$", printed, re.MULTILINE)
    similarity = embedding_reference.documents(documents) @ embedding_reference.queries([query])[0]
    assert [text for *_, text in cosines] == documents
    for column in (0, 1):
        np.testing.assert_allclose([float(row[column]) for row in cosines], similarity, atol=1e-3)
    scores = dict(zip(documents, reranker_reference.scores(query, documents), strict=True))
    ranked = re.findall(r"^P\(yes\) (\S+)  (.+)$", printed, re.MULTILINE)
    assert len(ranked) == len(documents)
    for score, text in ranked:
        assert float(score) == pytest.approx(scores[text], abs=CLOSE)


def test_fastapi_service_finds_what_is_embedded(servers: Example, tmp_path: Path) -> None:
    embedding, reranker = servers
    port = free_port()
    environment = {
        **os.environ,
        "QWEN3_EMBEDDING_URL": embedding.base_url,
        "QWEN3_RERANKER_URL": reranker.base_url,
        "PORT": str(port),
    }
    command = [sys.executable, str(EXAMPLES / "fastapi_service.py")]
    service = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=40, backoff_factor=0.1)))
        url = f"http://127.0.0.1:{port}"
        assert session.get(f"{url}/search?query=moon", timeout=60).json() == {"indexed": 0, "results": []}
        accepted = session.post(f"{url}/documents", data=CORPUS.read_bytes(), timeout=60)
        assert (accepted.status_code, accepted.json()) == (202, {"accepted": len(TEXTS)})
        found: dict[str, Any] = {"indexed": 0}
        while service.poll() is None and found["indexed"] < len(TEXTS):
            found = session.get(f"{url}/search", params={"query": MOON}, timeout=60).json()
        texts = [each["text"] for each in found["results"]]
        assert len(texts) == KEPT and set(texts) <= set(TEXTS)
    finally:
        service.terminate()
        service.wait(timeout=60)


def test_ingestion_asks_for_nothing_twice(servers: Example, tmp_path: Path) -> None:
    first = run("llama_index_ingestion.py", servers, tmp_path)
    later = run("llama_index_ingestion.py", servers, tmp_path)
    pattern = rf"run: {len(TEXTS)} nodes with vectors, (\d+) texts embedded"
    # Two more texts than the corpus has: the client's own questions to a server that it does not know, in
    # binary and, since those answers come in pieces, in base64.
    assert re.findall(pattern, first) == [str(len(TEXTS) + 2), "0"]
    assert re.findall(pattern, later) == ["0", "0"]


def test_cached_embeddings_keep_a_query_and_an_equal_document_apart(servers: Example, tmp_path: Path) -> None:
    for _ in range(2):
        assert "different vectors: True" in run("cached_embeddings.py", servers, tmp_path)
    kinds = sorted(path.name.rsplit("-", 2)[1] for path in (tmp_path / "embedding_cache").iterdir())
    assert kinds == ["document", "query"]


def test_composite_ranking_weighs_all_three(
    servers: Example, reranker_reference: ReferenceReranker, tmp_path: Path
) -> None:
    lines = re.findall(
        r"^  (\d\.\d{4}) +(\d+) days  (\d\.\d\d)  (.+)$",
        run("composite_ranking.py", servers, tmp_path),
        re.MULTILINE,
    )
    articles = [(float(score), int(age), float(rate), text) for score, age, rate, text in lines]
    assert len(articles) == 8
    texts = [text for *_, text in articles[:4]]
    np.testing.assert_allclose(
        [score for score, *_ in articles[:4]],
        reranker_reference.scores("How do I reset my router?", texts),
        atol=CLOSE,
    )
    by_relevance = [score for score, *_ in articles[:4]]
    by_mix = [score * (0.5 + 0.3 * 0.5 ** (age / 180) + 0.2 * rate) for score, age, rate, _ in articles[4:]]
    assert by_relevance == sorted(by_relevance, reverse=True)
    assert by_mix == sorted(by_mix, reverse=True)


@pytest.mark.parametrize("kind", ["bare", "templated"])
def test_plain_python_gives_the_right_numbers(
    kind: str,
    embedding_server: RunningServer,
    embedding_reference: ReferenceEmbedding,
    reranker_reference: ReferenceReranker,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    fixture = "reranker_server" if kind == "bare" else "templated_reranker_server"
    query, documents = (
        "中国的首都是哪里？",
        ["The capital of China is Beijing.", "绿茶宜用八十度左右的水冲泡。"],
    )

    printed = run("plain_python.py", (embedding_server, request.getfixturevalue(fixture)), tmp_path)

    cosines = re.findall(r"^cosine (-?\d\.\d{4})  (.+)$", printed, re.MULTILINE)
    assert [text for _, text in cosines] == documents
    similarity = embedding_reference.documents(documents) @ embedding_reference.queries([query])[0]
    np.testing.assert_allclose([float(number) for number, _ in cosines], similarity, atol=1e-3)
    answers = re.findall(r"^P\(yes\) (\d\.\d{4}) (yes|no) +(.+)$", printed, re.MULTILINE)
    scores = reranker_reference.scores(query, documents)
    assert [text for *_, text in answers] == documents
    np.testing.assert_allclose([float(score) for score, *_ in answers], scores, atol=CLOSE)
    assert [label for _, label, _ in answers] == ["yes" if score >= 0.5 else "no" for score in scores]


def test_spans_of_a_search_are_printed(servers: Example, tmp_path: Path) -> None:
    printed = run("opentelemetry_spans.py", servers, tmp_path)

    embeddings, ranking, search = map(json.loads, re.findall(r"^\{.*?^\}", printed, re.MULTILINE | re.DOTALL))
    assert search["name"] == "search"
    assert embeddings["parent_id"] == ranking["parent_id"] == search["context"]["span_id"]
    assert embeddings["attributes"]["gen_ai.operation.name"] == "embeddings"
    assert ranking["attributes"]["gen_ai.operation.name"] == "rerank"


def test_several_servers_find_what_one_finds(
    servers: Example, tmp_path: Path, embedding_reference: ReferenceEmbedding
) -> None:
    embedding, reranker = servers
    two = f"{embedding.base_url},{embedding.base_url.replace('127.0.0.1', 'localhost')}"
    printed = run("several_servers.py", (replace(embedding, base_url=two), reranker), tmp_path, MOON)
    assert all(url in printed for url in two.split(","))
    cosines = embedding_reference.documents(TEXTS) @ embedding_reference.queries([MOON])[0]
    expected = [(float(cosines[place]), TEXTS[place]) for place in np.argsort(-cosines)[:KEPT]]
    assert [text for _, text in scored(printed)] == [text for _, text in expected]
    np.testing.assert_allclose([c for c, _ in scored(printed)], [c for c, _ in expected], atol=CLOSE)


def test_ray_embeds_the_whole_corpus(servers: Example, tmp_path: Path) -> None:
    printed = run("ray_bulk_embed.py", servers, tmp_path, str(CORPUS), str(tmp_path / "out"))
    assert f"{len(TEXTS)} documents" in printed


def examples() -> set[str]:
    return {path.name for path in EXAMPLES.glob("*.py")}


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert examples() - set(re.findall(r"\((\w+\.py)\)", index)) == set()


def test_every_link_of_the_index_leads_somewhere() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", index)
    assert [link for link in links if not (EXAMPLES / link).exists()] == []


def test_every_example_is_run() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert {name for name in examples() if f'"{name}"' not in tests} == set()


@pytest.mark.parametrize("name", sorted(examples()))
def test_docstring_says_how_to_serve_and_to_run(name: str) -> None:
    docstring = (EXAMPLES / name).read_text(encoding="utf-8").split('"""')[1]
    assert "qwen3-vllm serve" in docstring
    assert f"python examples/{name}" in docstring


def test_code_of_the_page_on_haystack_runs(servers: Example, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "haystack.md").read_text(encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)), encoding="utf-8")
    run(str(script), servers, tmp_path)
