"""Examining servers through gateways: what is missing is told, each with what helps, and nothing fails."""

import json

import pytest
from typer.testing import CliRunner

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.cli import app
from qwen3_vllm.doctor import Check, examine
from tests.fake_vllm import RIGHT_TEMPLATE, FakeVLLM
from tests.faults import serve
from tests.gateways import ANY, Gateway

EMBEDDING, RERANKER = FakeVLLM("embedding"), FakeVLLM("reranker")
V1 = ("/v1/",)
NO_ENCODING = {"encoding_format": ANY, "embed_dtype": ANY, "endianness": ANY}


def checks_of(gateway: Gateway, role: str, model: str | None = None) -> dict[str, Check]:
    with serve(gateway) as server:
        address = server.base_url + (gateway.base if gateway.base != "/v1" else "")
        kind = EmbeddingClient if role == "embedding" else RerankClient
        found = examine(kind(base_url=address, model=model, timeout=10, max_retries=1))
    return {check.name.removeprefix(f"{role}."): check for check in found}


@pytest.mark.parametrize(
    ("gateway", "name", "seen", "helps"),
    [
        (Gateway(EMBEDDING, refuses=NO_ENCODING), "encoding", "unset", "base64"),
        (Gateway(EMBEDDING, most_texts=10), "texts per request", "10 at most", "batch_size=10"),
        (Gateway(EMBEDDING, passes=V1), "long texts", "cut by the server", "/tokenize"),
        (
            Gateway(EMBEDDING, passes=V1, ignores=("truncate_prompt_tokens",)),
            "long texts",
            "by their bytes",
            "truncate_prompt_tokens",
        ),
        (Gateway(EMBEDDING, refuses={"dimensions": ANY}), "dimensions", "refuses", "Nothing to do"),
        (Gateway(EMBEDDING, drops=("max_model_len",)), "context length", "", "/v1/models"),
    ],
)
def test_what_embedding_lacks_is_told_with_what_helps(
    gateway: Gateway, name: str, seen: str, helps: str
) -> None:
    gateway.refusal = (500, "HTML")
    checks = checks_of(gateway, "embedding")

    assert checks[name].status == "warn"
    assert seen in checks[name].seen
    assert helps in checks[name].advice
    assert not [check for check in checks.values() if check.status == "fail"]


@pytest.mark.parametrize(
    ("gateway", "name", "seen", "helps"),
    [
        (Gateway(RERANKER, passes=V1, rerank="jina"), "scores pairs", "/v1/rerank", "/v1/score"),
        (
            Gateway(RERANKER, passes=("/classify", "/v1/models")),
            "scores pairs",
            "/classify alone",
            "/v1/score",
        ),
        (Gateway(RERANKER, passes=V1), "finished prompts", "no /classify", "template="),
        (Gateway(RERANKER, passes=V1), "long documents", "by their bytes", "tokenizer="),
        (Gateway(RERANKER, drops=("usage",)), "token counts", "no tokens", "`usage`"),
        (Gateway(RERANKER, refuses={"instruction": ANY}), "instruction field", "refused", "chat-template"),
        (Gateway(RERANKER, most_texts=5), "texts per request", "5 at most", "batch_size=5"),
        (
            Gateway(FakeVLLM(template=RIGHT_TEMPLATE), passes=V1),
            "template",
            "could not check",
            "/classify or /tokenize",
        ),
    ],
)
def test_what_reranking_lacks_is_told_with_what_helps(
    gateway: Gateway, name: str, seen: str, helps: str
) -> None:
    gateway.refusal = (403, "HTML")
    checks = checks_of(gateway, "reranker")

    assert checks[name].status == "warn"
    assert seen in checks[name].seen
    assert helps in checks[name].advice
    assert not [check for check in checks.values() if check.status == "fail"], checks


def test_the_model_that_does_the_work_is_examined_of_several() -> None:
    gateway = Gateway(EMBEDDING, names=("qwen3-embed",), lists=("gpt", "reranker", "qwen3-embed", "*"))

    model = checks_of(gateway, "embedding")["model"]

    assert model.status == "ok"
    assert "'qwen3-embed'" in model.seen


def test_a_model_that_is_not_listed_can_be_named() -> None:
    gateway = Gateway(EMBEDDING, names=("team/embed",), blocks=("/v1/models",), refusal=(401, "JSON"))

    assert checks_of(gateway, "embedding")["reachable"].status == "fail"
    checks = checks_of(gateway, "embedding", "team/embed")
    assert checks["model"].status == "warn"
    assert "model='team/embed'" in checks["model"].advice
    assert checks["key"].status == "ok"  # what the gateway refuses to everybody wants no key


def test_the_command_names_models_and_prints_what_is_missing() -> None:
    with serve(Gateway(RERANKER, passes=("/v1/rerank",), rerank="cohere", names=("r",))) as server:
        arguments = ["doctor", "--reranker-url", server.base_url, "--reranker-model", "r", "--json"]
        ended = CliRunner().invoke(app, arguments)

    assert ended.exit_code == 0, ended.output
    by_name = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert by_name["reranker.scores pairs"]["seen"] == "/v1/rerank, one query per request"
