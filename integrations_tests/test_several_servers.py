"""Several real servers with a key, behind HAProxy and as a list of addresses: right, whichever dies."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import requests

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.bulk import embed_files
from qwen3_vllm.serving import ServeOptions, Server, start_server
from qwen3_vllm.serving.command.haproxy import haproxy_config
from qwen3_vllm.serving.machine.ports import free_port
from tests.bulk.runs import ids, vectors, write_lines

from .conftest import BOOT_SECONDS, KEY, kubernetes_probe, need
from .reference import ReferenceEmbedding

MANY = [f"Passage {number} says that the capital of country {number} is {number}." for number in range(1200)]
TEXTS = MANY[:200]
KEYED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def servers(
    checkpoints: Path, tmp_path_factory: pytest.TempPathFactory, clean_environment: None
) -> Iterator[list[Server]]:
    """Boot two servers: the second is named twice, so that the first is kept for queries."""
    model, folder = str(checkpoints / "Qwen3-Embedding-random"), tmp_path_factory.mktemp("several")
    options = ServeOptions("embedding", model, port=0, dtype="float32", api_key=KEY)

    def start(number: int) -> Server:
        return start_server(options, log_path=folder / f"{number}.log", timeout=BOOT_SECONDS)

    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        yield [stack.enter_context(server) for server in threads.map(start, range(2))]


@pytest.fixture(scope="module")
def addresses(servers: list[Server]) -> list[str]:
    first, second = (server.base_url for server in servers)
    return [first, second, second.replace("127.0.0.1", "localhost")]


@pytest.fixture(scope="module")
def balancer(addresses: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run HAProxy before the servers, with the configuration of `serve`."""
    program, port = need("haproxy"), free_port()
    config = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    behind = [address.removeprefix("http://") for address in addresses]
    config.write_text(haproxy_config("embedding", "127.0.0.1", port, behind))
    process = subprocess.Popen([program, "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        client(url).wait_until_ready(30)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["HAProxy", "addresses"])
def url(request: pytest.FixtureRequest, balancer: str, addresses: list[str]) -> str | list[str]:
    """What a client is given: one address for all, or all addresses."""
    return balancer if request.param == "HAProxy" else addresses


def client(url: str | list[str], **options: object) -> EmbeddingClient:
    return EmbeddingClient(base_url=url, api_key=KEY, **{"timeout": 60, "batch_size": 8, **options})


@pytest.fixture(scope="module")
def right(embedding_reference: ReferenceEmbedding) -> np.ndarray:
    return embedding_reference.documents(TEXTS)


def answered(servers: list[Server]) -> list[int]:
    """Requests for embeddings that each server has answered."""
    counts = []
    for server in servers:
        shown = requests.get(f"{server.base_url}/metrics", headers=KEYED, timeout=30).text
        lines = re.findall(r'^http_requests_total\{handler="/v1/embeddings".*\} (\S+)$', shown, re.MULTILINE)
        counts.append(int(sum(map(float, lines))))
    return counts


def test_vectors_are_those_of_the_reference(url: str | list[str], right: np.ndarray) -> None:
    np.testing.assert_allclose(client(url).embed_documents(TEXTS), right, atol=1e-4)


def test_bulk_is_embedded_into_a_folder(url: str | list[str], right: np.ndarray, tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    source = write_lines(tmp_path / "texts.jsonl", map(json.dumps, rows))
    summary = embed_files([source], tmp_path / "out", client=client(url))

    assert summary.embedded == len(TEXTS)
    assert ids(tmp_path / "out") == [row["id"] for row in rows]
    np.testing.assert_allclose(vectors(tmp_path / "out"), right, atol=1e-4)


def test_a_query_beside_bulk_goes_to_a_server_without_bulk(
    url: str | list[str], servers: list[Server]
) -> None:
    both = client(url)
    both.embed_documents(["all are met"])
    bulk = threading.Thread(target=both.embed_documents, args=(MANY,))
    before = answered(servers)
    bulk.start()
    queries = 0
    while bulk.is_alive():
        both.embed_queries([f"What is {queries}?"])
        queries += 1
    first, other = (now - then for now, then in zip(answered(servers), before, strict=True))

    # No bulk came to the first server. Queries between two requests of the bulk may go anywhere.
    assert queries >= first >= queries * 0.6
    assert other >= len(MANY) / 8


def test_a_foreign_client_that_floods_the_bulk_side_cannot_starve_queries(
    balancer: str, servers: list[Server]
) -> None:
    stop = threading.Event()
    flooded = 0

    def flood() -> None:
        nonlocal flooded
        while not stop.is_set():
            body = {"model": "qwen3_embedding", "input": ["word " * 200] * 8}
            answer = requests.post(f"{balancer}/v1/embeddings", json=body, headers=KEYED, timeout=60)
            assert answer.status_code == 200
            flooded += 1

    with ThreadPoolExecutor(16) as threads:
        floods = [threads.submit(flood) for _ in range(16)]
        try:
            while not flooded:
                time.sleep(0.05)
            before, started = answered(servers), flooded
            asking = client(balancer, timeout=20, max_retries=0)
            for number in range(10):
                asking.embed_queries([f"What is {number}?"])
            first = answered(servers)[0] - before[0]
        finally:
            stop.set()
        for each in floods:
            each.result()
    assert flooded > started  # it goes on all the time
    assert first >= 10


def test_the_probe_of_kubernetes_passes(servers: list[Server], tmp_path: Path) -> None:
    done = kubernetes_probe("kubernetes.yaml", servers[0].base_url, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_balancer_wants_the_key_of_the_servers(balancer: str) -> None:
    body = {"model": "qwen3_embedding", "input": ["a"]}
    assert requests.post(f"{balancer}/v1/embeddings", json=body, timeout=30).status_code == 401
    assert requests.get(f"{balancer}/metrics/1", timeout=30).status_code == 401
    assert "vllm:" in requests.get(f"{balancer}/metrics/1", headers=KEYED, timeout=30).text


def test_a_server_that_hangs_and_returns_costs_no_text(
    addresses: list[str], servers: list[Server], right: np.ndarray
) -> None:
    both = client(addresses, timeout=5)
    both.embed_documents(["all are met"])
    assert servers[1].pid is not None
    os.killpg(servers[1].pid, signal.SIGSTOP)
    try:
        np.testing.assert_allclose(both.embed_documents(TEXTS), right, atol=1e-4)
    finally:
        os.killpg(servers[1].pid, signal.SIGCONT)
    before, ends = answered(servers)[1], time.monotonic() + 60
    while answered(servers)[1] < before + 5:
        assert time.monotonic() < ends
        np.testing.assert_allclose(both.embed_documents(TEXTS[:100]), right[:100], atol=1e-4)


def test_a_server_killed_in_mid_run_costs_no_text(
    addresses: list[str], balancer: str, servers: list[Server], right: np.ndarray
) -> None:
    """The last test: it ends a server, which two runs are using."""
    clients = [client(balancer, max_retries=6), client(addresses)]
    for each in clients:
        each.embed_documents(["all are met"])
    before = answered(servers)[1]
    with ThreadPoolExecutor() as threads:
        runs = [threads.submit(each.embed_documents, MANY) for each in clients]
        while answered(servers)[1] < before + 10:
            time.sleep(0.01)
        assert not any(run.done() for run in runs)
        assert servers[1].pid is not None
        os.killpg(servers[1].pid, signal.SIGKILL)
        for run in runs:
            found = run.result(200)
            np.testing.assert_allclose(found[: len(TEXTS)], right, atol=1e-4)
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
