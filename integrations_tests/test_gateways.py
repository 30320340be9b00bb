"""Real gateways before real servers: HAProxy with TLS by a private authority, and a LiteLLM proxy."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

from qwen3_vllm import EmbeddingClient, RerankClient, ServerUnreachableError
from qwen3_vllm.doctor import examine
from qwen3_vllm.serving import ServeOptions
from tests.certificates import make_authority
from tests.faults import Reply, Request, serve

from .conftest import ROOT, Boot, RunningServer, need
from .reference import INSTRUCTION, ReferenceEmbedding, ReferenceReranker

KEY = "sk-key-4711"
TOLERANCE = 1e-4
QUERY = "What is the capital of Germany?"
TEXTS = ["法国的首都是巴黎。", "Berlin is the capital of Germany.", "", "Bananas\nare yellow 🌋"]
LONG = "巴黎是法国的首都。" * 500  # more than the models' 2,048 tokens
# The first passes the whole server on, the second /v1 only, as a company's gateway does.
HAPROXY = """\
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s

frontend embedding
    bind 127.0.0.1:{ports[0]} ssl crt {folder}/both.pem
    default_backend embedding

frontend reranker
    bind 127.0.0.1:{ports[1]} ssl crt {folder}/both.pem
    http-request deny deny_status 403 unless {{ path_beg /v1/ }}
    default_backend reranker

backend embedding
    server one {servers[0]}

backend reranker
    server one {servers[1]}
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def running(command: Sequence[str], log: Path, url: str, *, verify: str | bool = True) -> Iterator[None]:
    """Run a gateway until it answers, and end it with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if requests.get(url, timeout=5, verify=verify).ok:
                    break
            except requests.RequestException:
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


# --- TLS -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_authority(tmp_path_factory.mktemp("tls"))
    (folder / "both.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return folder


@pytest.fixture(scope="module")
def haproxy(
    authority: Path, embedding_server: RunningServer, reranker_server: RunningServer
) -> Iterator[list[str]]:
    """The addresses of an embedding server and of a reranker behind HAProxy."""
    ports = free_ports(2)
    servers = [each.base_url.removeprefix("http://") for each in (embedding_server, reranker_server)]
    config = authority / "haproxy.cfg"
    config.write_text(HAPROXY.format(ports=ports, folder=authority, servers=servers))
    urls = [f"https://127.0.0.1:{port}" for port in ports]
    command = [need("haproxy"), "-db", "-f", str(config)]
    with running(command, authority / "log", f"{urls[0]}/health", verify=str(authority / "ca.pem")):
        yield urls


def test_vectors_through_tls_by_a_private_authority_are_those_of_transformers(
    haproxy: list[str],
    authority: Path,
    embedding_reference: ReferenceEmbedding,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [*TEXTS, LONG]
    expected = embedding_reference.documents(texts)
    named = EmbeddingClient(base_url=haproxy[0], verify=authority / "ca.pem")
    np.testing.assert_allclose(named.embed_documents(texts), expected, atol=TOLERANCE)

    with pytest.raises(ServerUnreachableError, match="pass the authority's file as verify"):
        EmbeddingClient(base_url=haproxy[0]).embed_documents(texts)

    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    by_environment = EmbeddingClient(base_url=haproxy[0])
    np.testing.assert_allclose(by_environment.embed_documents(texts), expected, atol=TOLERANCE)


def test_scores_through_a_gateway_that_passes_v1_only_are_those_of_transformers(
    haproxy: list[str], authority: Path, reranker_reference: ReferenceReranker, checkpoints: Path
) -> None:
    tokenizer = checkpoints / "Qwen3-Reranker-random"
    client = RerankClient(base_url=haproxy[1], verify=authority / "ca.pem", tokenizer=tokenizer)

    scores = client.score(QUERY, [*TEXTS, LONG])

    expected = reranker_reference.scores(QUERY, [*TEXTS, LONG])
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


# --- /v1/rerank alone, without token counts -------------------------------------------------------------


@pytest.fixture(scope="module")
def templated_demo_reranker(boot_for_module: Boot) -> RunningServer:
    """The demo's reranker with our chat template."""
    model = ROOT / "demo" / "models" / "Qwen3-Reranker-demo"
    return boot_for_module(ServeOptions("reranker", str(model), port=0))[0]


@pytest.fixture
def demo_reranker(demo_servers: list[RunningServer]) -> RunningServer:
    """The demo's reranker without a chat template."""
    return demo_servers[1]


def rerank_alone(server: RunningServer) -> Callable[[Request], Reply]:
    """Pass on /v1/rerank, and no counts, as some gateways in Jina's shape do."""

    def answer(request: Request) -> Reply:
        if request.path != "/v1/rerank":
            return Reply(404, b"<html>no such page</html>", {"Content-Type": "text/html"})
        headers = {"Content-Type": "application/json"}
        got = requests.post(server.base_url + request.path, request.body, headers=headers, timeout=60)
        fields = {name: value for name, value in got.json().items() if name != "usage"}
        return Reply.of_json(fields, got.status_code)

    return answer


@pytest.mark.parametrize(
    "fixture", ["demo_reranker", pytest.param("templated_demo_reranker", marks=pytest.mark.nightly)]
)
def test_scores_of_obvious_pairs_tell_who_applies_the_template(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    server: RunningServer = request.getfixturevalue(fixture)
    expected = RerankClient(base_url=server.base_url).score(QUERY, TEXTS[:2])

    with serve(rerank_alone(server)) as gateway:
        client = RerankClient(base_url=gateway.base_url, model="qwen3_reranker")
        np.testing.assert_allclose(client.score(QUERY, TEXTS[:2]), expected, atol=2e-2)


# --- LiteLLM -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def litellm(
    tmp_path_factory: pytest.TempPathFactory,
    embedding_server: RunningServer,
    reranker_server: RunningServer,
    templated_reranker_server: RunningServer,
) -> Iterator[str]:
    """The address of a LiteLLM proxy with a key, in a virtual environment of its own."""
    environment, folder = ROOT / ".cache" / "litellm", tmp_path_factory.mktemp("litellm")
    variables = os.environ | {"PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts/litellm.sh", environment], check=True, env=variables)
    models = {
        "qwen3-embed": ("qwen3_embedding", f"{embedding_server.base_url}/v1"),
        "qwen3-rerank": ("qwen3_reranker", reranker_server.base_url),
        "qwen3-rerank-templated": ("qwen3_reranker", templated_reranker_server.base_url),
    }
    config = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"hosted_vllm/{served}", "api_base": address}}
            for name, (served, address) in models.items()
        ],
        "general_settings": {"master_key": KEY},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [str(environment / "bin/litellm"), "--config", str(folder / "config.yaml")]
    with running(
        [*command, "--host", "127.0.0.1", "--port", str(port)], folder / "log", f"{url}/health/liveliness"
    ):
        yield url


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"model": "qwen3-embed", "dimensions": 64}], ids=["whole", "cut"])
def test_vectors_through_litellm_are_those_of_transformers(
    litellm: str, options: dict[str, object], embedding_reference: ReferenceEmbedding
) -> None:
    keys = iter(["sk-expired", *[KEY] * 1000])
    client = EmbeddingClient(base_url=litellm, api_key=lambda: next(keys), **options)

    vectors = client.embed_documents([*TEXTS, LONG])

    expected = embedding_reference.documents([*TEXTS, LONG])[:, : vectors.shape[1]]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["qwen3-rerank", "qwen3-rerank-templated"])
@pytest.mark.parametrize("instruction", [None, "Judge whether the document names a fruit"])
def test_scores_through_litellm_are_those_of_transformers(
    litellm: str,
    model: str,
    instruction: str | None,
    reranker_reference: ReferenceReranker,
    checkpoints: Path,
) -> None:
    tokenizer = checkpoints / "Qwen3-Reranker-random"
    client = RerankClient(base_url=f"{litellm}/v1", model=model, api_key=KEY, tokenizer=tokenizer)

    scores = client.score(QUERY, [*TEXTS, LONG], instruction=instruction)

    expected = reranker_reference.scores(QUERY, [*TEXTS, LONG], instruction or INSTRUCTION)
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


@pytest.mark.nightly
def test_doctor_says_what_works_through_litellm(litellm: str) -> None:
    checks = {
        check.name: check
        for check in examine(
            EmbeddingClient(base_url=litellm, api_key=KEY),
            RerankClient(base_url=litellm, model="qwen3-rerank", api_key=KEY),
        )
    }

    assert not [check for check in checks.values() if check.status == "fail"]
    assert checks["embedding.encoding"].seen == "base64"
    assert checks["reranker.scores pairs"].seen == "/v1/rerank, one query per request"
    assert "tokenizer=" in checks["reranker.long documents"].advice
