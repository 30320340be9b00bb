"""Examining real servers: right ones pass, each wrong one fails by its own check."""

import json

import pytest
from typer.testing import CliRunner

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.cli import app
from qwen3_vllm.doctor import Check, examine

from .conftest import KEY, RunningServer


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if check.status == "fail"}


def test_a_right_embedding_server_passes(embedding_server: RunningServer) -> None:
    checks = examine(EmbeddingClient(base_url=embedding_server.base_url))

    assert {check.status for check in checks} == {"ok", "skip"}, checks
    assert [check.name for check in checks if check.status == "skip"] == ["embedding.published numbers"]
    assert str(embedding_server.model_path) in by_name(checks)["embedding.model"].seen


def test_a_reranker_without_a_template_passes(reranker_server: RunningServer) -> None:
    checks = examine(RerankClient(base_url=reranker_server.base_url))

    assert failed(checks) == set(), checks
    assert "none at the server" in by_name(checks)["reranker.template"].seen


def test_a_reranker_with_our_template_passes(templated_reranker_server: RunningServer) -> None:
    checks = examine(RerankClient(base_url=templated_reranker_server.base_url))

    assert failed(checks) == set(), checks
    assert by_name(checks)["reranker.template"].status == "ok"
    assert "the server's" in by_name(checks)["reranker.template"].seen


def test_wrong_prompts_score_elsewhere_on_a_real_model(reranker_server: RunningServer) -> None:
    values = by_name(examine(RerankClient(base_url=reranker_server.base_url)))["reranker.scores"].values

    right = values["through this client"]
    for way, scores in values.items():
        apart = max(abs(a - b) for a, b in zip(right, scores, strict=True))
        assert (apart > 0.01) is (way != "through this client"), way


def test_swapped_addresses_are_failed_checks(
    embedding_server: RunningServer, reranker_server: RunningServer
) -> None:
    checks = examine(
        EmbeddingClient(base_url=reranker_server.base_url), RerankClient(base_url=embedding_server.base_url)
    )

    assert failed(checks) == {"embedding.serves embeddings", "reranker.is a Qwen3 reranker"}


def test_wrong_pooling_fails(wrong_servers: list[RunningServer]) -> None:
    checks = examine(EmbeddingClient(base_url=wrong_servers[0].base_url))

    assert failed(checks) == {"embedding.unit norm", "embedding.end token"}, checks


def test_a_wrong_template_fails_behind_a_right_guard(wrong_servers: list[RunningServer]) -> None:
    url = wrong_servers[1].base_url

    checks = examine(RerankClient(base_url=url, api_key=KEY))

    assert failed(checks) == {"reranker.template"}, checks
    assert by_name(checks)["reranker.key"].status == "ok"
    assert failed(examine(RerankClient(base_url=url))) == {"reranker.reachable"}


def test_the_command_passes_right_servers(
    embedding_server: RunningServer, templated_reranker_server: RunningServer
) -> None:
    urls = [
        "--embedding-url",
        embedding_server.base_url,
        "--reranker-url",
        f"{templated_reranker_server.base_url}/v1",
    ]

    ended = CliRunner().invoke(app, ["doctor", *urls, "--json"])

    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["ok"] is True


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_nothing_there_ends_with_1(url: str) -> None:
    assert CliRunner().invoke(app, ["doctor", "--embedding-url", url]).exit_code == 1
