"""Examining servers: what is right passes, each kind of wrong fails by its name, with advice."""

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import qwen3_vllm
from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm._core.vllm_api.calls import ServedModel
from qwen3_vllm.cli import app
from qwen3_vllm.doctor import Check, as_json, examine, samples
from tests.fake_vllm import DEAF_TEMPLATE, END_TOKEN, RIGHT_TEMPLATE, STOCK_TEMPLATE, FakeVLLM
from tests.faults import Reply, Request, serve

KEY = "a-key-that-nobody-may-see-4711"


class Gateway(FakeVLLM):
    """Wants its key, and fails instead of refusing where it is missing, as LiteLLM does."""

    def __call__(self, request: Request) -> Reply | None:
        if self._key_of(request) == self.api_key:
            return super().__call__(request)
        status = {"/v1/models": 401, "/v1/rerank": 400, "/rerank": 503}.get(request.path, 500)
        return Reply.of_json({"error": {"message": "No api key passed in", "code": status}}, status)


class Demo(FakeVLLM):
    """Has the small tokenizer of the demo models."""

    def encode(self, text: str) -> list[int]:
        return [token - 151_643 + 13_000 if token >= 151_643 else token for token in super().encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode([token - 13_000 + 151_643 if token >= 13_000 else token for token in ids])


class Unnormalised(FakeVLLM):
    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        return 3 * super().vector(prompt, dimensions)


class PoolsTheFirstToken(FakeVLLM):
    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        return super().vector(prompt[:1], dimensions)


class AddsNoEndToken(FakeVLLM):
    def encode(self, text: str) -> list[int]:
        return [] if text == END_TOKEN else super().encode(text)


class CutsWrongly(FakeVLLM):
    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        return super().vector(prompt)[::-1][:dimensions] if dimensions else super().vector(prompt)


class WebPage(FakeVLLM):
    def __call__(self, request: Request) -> Reply | None:
        return Reply(200, b"<!doctype html><title>Grafana</title>", {"Content-Type": "text/html"})


def checks_of(server: FakeVLLM, role: str, api_key: str | None = None) -> dict[str, Check]:
    with serve(server) as running:
        kind = EmbeddingClient if role == "embedding" else RerankClient
        found = examine(kind(base_url=running.base_url, api_key=api_key, timeout=10, max_retries=1))
    return {check.name: check for check in found}


def statuses(checks: dict[str, Check]) -> set[str]:
    return {check.status for check in checks.values()}


def test_a_right_embedding_server_passes() -> None:
    checks = checks_of(FakeVLLM("embedding", matryoshka=True), "embedding")

    assert statuses(checks) == {"ok", "skip"}
    assert [name for name, check in checks.items() if check.status == "skip"] == [
        "embedding.published numbers"
    ]


@pytest.mark.parametrize("template", [None, RIGHT_TEMPLATE], ids=["client", "server"])
def test_a_right_reranker_passes(template: str | None) -> None:
    checks = checks_of(FakeVLLM("reranker", template=template), "reranker")

    assert statuses(checks) == {"ok", "skip"}
    assert [name for name, check in checks.items() if check.status == "skip"] == [
        "reranker.published numbers"
    ]


@pytest.mark.parametrize(
    ("server", "role", "name", "status"),
    [
        (FakeVLLM("reranker"), "embedding", "serves embeddings", "fail"),
        (FakeVLLM("chat"), "embedding", "serves embeddings", "fail"),
        (WebPage("embedding"), "embedding", "reachable", "fail"),
        (Unnormalised("embedding"), "embedding", "unit norm", "fail"),
        (PoolsTheFirstToken("embedding"), "embedding", "end token", "fail"),
        (AddsNoEndToken("embedding"), "embedding", "end token", "fail"),
        (FakeVLLM("embedding"), "embedding", "dimensions", "warn"),
        (CutsWrongly("embedding", matryoshka=True), "embedding", "dimensions", "fail"),
        (FakeVLLM("embedding", version="0.8.5"), "embedding", "version", "warn"),
        (FakeVLLM("embedding", context=700), "embedding", "context length", "ok"),
        (FakeVLLM("embedding"), "reranker", "is a Qwen3 reranker", "fail"),
        (FakeVLLM("chat"), "reranker", "is a Qwen3 reranker", "fail"),
        (FakeVLLM("cross-encoder"), "reranker", "is a Qwen3 reranker", "fail"),
        (FakeVLLM("constant"), "reranker", "is a Qwen3 reranker", "fail"),
        (FakeVLLM("reranker", template=STOCK_TEMPLATE), "reranker", "template", "fail"),
        (FakeVLLM("reranker", template=DEAF_TEMPLATE), "reranker", "template", "warn"),
        (FakeVLLM("reranker", template=RIGHT_TEMPLATE, version="0.15.0"), "reranker", "template", "warn"),
        (FakeVLLM("reranker", context=200), "reranker", "context length", "warn"),
    ],
)
def test_what_is_wrong_has_its_check_and_advice(server: FakeVLLM, role: str, name: str, status: str) -> None:
    check = checks_of(server, role)[f"{role}.{name}"]

    assert (check.status, bool(check.advice)) == (status, status != "ok"), check


@pytest.mark.parametrize("template", [STOCK_TEMPLATE, DEAF_TEMPLATE], ids=["stock", "deaf"])
def test_a_wrong_template_leaves_this_client_right(template: str) -> None:
    checks = checks_of(FakeVLLM("reranker", template=template), "reranker")

    assert {checks[f"reranker.{name}"].status for name in ("scores", "instruction", "control tokens")} == {
        "ok"
    }


def test_wrong_prompts_have_their_scores_beside_the_right_ones() -> None:
    values = checks_of(FakeVLLM("reranker"), "reranker")["reranker.scores"].values

    assert next(iter(values)) == "through this client"
    assert len(values) == 4
    assert {len(scores) for scores in values.values()} == {len(samples.PAIRS)}


def test_a_proxy_that_passes_on_little_is_told_from_a_broken_server() -> None:
    missing = ("/tokenize", "/detokenize", "/classify")
    checks = checks_of(FakeVLLM("reranker", missing=missing), "reranker")

    assert "fail" not in statuses(checks)
    assert checks["reranker.tokenizer"].status == "warn"
    assert checks["reranker.scores"].status == "skip"


def test_nothing_at_the_address_is_a_failed_check() -> None:
    nobody = {"base_url": "http://127.0.0.1:9", "max_retries": 0}

    checks = examine(EmbeddingClient(**nobody), RerankClient(**nobody))

    assert [(check.name, check.status) for check in checks] == [
        ("embedding.reachable", "fail"),
        ("embedding.the rest", "skip"),
        ("reranker.reachable", "fail"),
        ("reranker.the rest", "skip"),
    ]


@pytest.mark.parametrize(
    ("server", "given", "status", "seen"),
    [
        (FakeVLLM("reranker"), None, "ok", "none needed"),
        (FakeVLLM("reranker"), KEY, "fail", "every route answers"),
        (FakeVLLM("reranker", api_key=KEY), KEY, "fail", "/tokenize"),
        (FakeVLLM("reranker", api_key=KEY), None, "fail", "/classify"),
        (FakeVLLM("reranker", api_key=KEY, guards_all=True), KEY, "ok", "no route answers"),
        (Gateway("reranker", api_key=KEY), KEY, "ok", "no route answers"),
        (Gateway("reranker", api_key=KEY), None, "ok", "no route answers"),
        (FakeVLLM("reranker", api_key=KEY, guards_all=True), None, "ok", "no route answers"),
    ],
)
def test_open_routes_are_named(server: FakeVLLM, given: str | None, status: str, seen: str) -> None:
    check = checks_of(server, "reranker", given)["reranker.key"]

    assert check.status == status
    assert seen in check.seen


@pytest.mark.parametrize("role", ["embedding", "reranker"])
def test_the_demo_models_pass_and_are_told(role: str) -> None:
    checks = checks_of(Demo(role, matryoshka=True), role)  # type: ignore[arg-type]

    assert "fail" not in statuses(checks), checks
    assert "demo models" in checks[f"{role}.tokenizer"].seen


class OtherIds(FakeVLLM):
    def encode(self, text: str) -> list[int]:
        return [token + 97_000 if token >= 151_643 else token for token in super().encode(text)]


def test_an_unknown_tokenizer_is_told_by_its_ids() -> None:
    check = checks_of(OtherIds("embedding"), "embedding")["embedding.tokenizer"]

    assert check.status == "fail"
    assert "151644, 151645, 151667, 151668" in check.seen
    assert "248644, 248645, 248667, 248668" in check.seen


def test_a_source_tree_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert as_json([])["environment"]["qwen3-vllm"] == qwen3_vllm.__version__


def test_a_server_that_wants_a_key_says_so() -> None:
    checks = checks_of(FakeVLLM("embedding", api_key=KEY, guards_all=True), "embedding")

    assert checks["embedding.reachable"].status == "fail"
    assert "VLLM_API_KEY" in checks["embedding.reachable"].advice


def test_the_key_is_in_no_check() -> None:
    for server in (FakeVLLM("reranker", api_key=KEY), FakeVLLM("reranker", api_key="another")):
        checks = checks_of(server, "reranker", KEY)
        assert KEY not in json.dumps(as_json(list(checks.values())))


def test_who_has_no_key_goes_the_way_of_the_client() -> None:
    fake = FakeVLLM("embedding")
    host = "http://gpu.invalid"

    def proxy(request: Request) -> Reply | None:
        return fake(replace(request, path=request.path.removeprefix(host)))

    with serve(proxy) as between:
        checks = examine(EmbeddingClient(base_url=host, proxy=between.base_url, api_key=KEY, max_retries=1))

    (key,) = [check for check in checks if check.name == "embedding.key"]
    assert (key.status, key.seen) == ("fail", "every route answers without the key")


@pytest.mark.parametrize(
    ("name", "root", "official"),
    [
        ("qwen3_reranker", "./models/Qwen3-Reranker-0.6B", True),
        ("qwen3_reranker", "./models/Qwen3-Reranker-0.6B/", True),
        ("Qwen/Qwen3-Reranker-0.6B", None, True),
        ("qwen3_reranker", "./models/Qwen3-Reranker-0.6B-GPTQ-Int4", False),
        ("qwen3_reranker", "./models/Qwen3-Reranker-4B", False),
        ("qwen3_reranker", None, False),
    ],
)
def test_official_models_are_known_by_name_or_folder(name: str, root: str | None, official: bool) -> None:
    assert samples.is_official(ServedModel(name, 8192, root), "Qwen3-Reranker-0.6B") is official


class OfficialReranker(FakeVLLM):
    """Answers the published pairs as published; `shift` moves them."""

    shift = 1.0

    def probability(self, prompt: str | Sequence[int]) -> float:
        text = prompt if isinstance(prompt, str) else self.decode(prompt)
        for document, score in zip(samples.KNOWN_DOCUMENTS, samples.KNOWN_SCORES, strict=True):
            if samples.KNOWN_QUERY in text and document in text:
                return score * self.shift
        return super().probability(prompt)


class OfficialEmbedding(FakeVLLM):
    """Embeds the model card's texts so that their cosines are those of the card."""

    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        text = prompt if isinstance(prompt, str) else self.decode(prompt)
        vector = np.zeros(16, np.float32)
        for row, query in enumerate(samples.CARD_QUERIES):
            if text.startswith("Instruct: ") and query in text:
                vector[row] = 1
                return vector
        for column, document in enumerate(samples.CARD_DOCUMENTS):
            if text.startswith(document):
                vector[:2] = np.array(samples.CARD_COSINES)[:, column]
                vector[2] = np.sqrt(1 - vector @ vector)
                return vector
        return super().vector(prompt, dimensions)


@pytest.mark.parametrize(("shift", "status"), [(1.0, "ok"), (0.5, "fail")])
def test_the_official_reranker_must_give_published_scores(shift: float, status: str) -> None:
    server = OfficialReranker("reranker", model="Qwen/Qwen3-Reranker-0.6B")
    server.shift = shift

    assert checks_of(server, "reranker")["reranker.published numbers"].status == status


@pytest.mark.parametrize(("kind", "status"), [(OfficialEmbedding, "ok"), (FakeVLLM, "fail")])
def test_the_official_embedding_model_must_give_published_cosines(kind: type[FakeVLLM], status: str) -> None:
    server = kind("embedding", model="Qwen3-Embedding-0.6B")

    assert checks_of(server, "embedding")["embedding.published numbers"].status == status


# --- the command ---------------------------------------------------------------------------------------


def test_the_command_ends_with_0_when_nothing_failed() -> None:
    with serve(FakeVLLM("reranker")) as running:
        ended = CliRunner().invoke(app, ["doctor", "--reranker-url", running.base_url, "--json"])

    assert ended.exit_code == 0
    result = json.loads(ended.stdout)
    assert result["ok"] is True
    assert result["checks"][0]["name"] == "reranker.reachable"


def test_the_command_ends_with_1_when_a_check_failed() -> None:
    with serve(FakeVLLM("chat")) as running:
        ended = CliRunner().invoke(app, ["doctor", "--embedding-url", f"{running.base_url}/v1"])

    assert ended.exit_code == 1
    assert "qwen3-vllm serve embedding" in ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--embedding-url", "localhost"], ["--timeout", "0"], ["--api-key-file", "/nowhere"], ["--nonsense"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["doctor", *arguments]).exit_code == 2


def test_the_command_looks_where_the_clients_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(FakeVLLM("embedding")) as embedding, serve(FakeVLLM("reranker")) as reranker:
        monkeypatch.setenv("QWEN3_EMBEDDING_URL", embedding.base_url)
        monkeypatch.setenv("QWEN3_RERANKER_URL", reranker.base_url)
        ended = CliRunner().invoke(app, ["doctor", "--json"])

    names = {check["name"] for check in json.loads(ended.stdout)["checks"]}
    assert {"embedding.unit norm", "reranker.template"} <= names


def test_the_key_may_come_from_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(f"# ours\n{KEY}\n")
    with serve(FakeVLLM("reranker", api_key=KEY, guards_all=True)) as running:
        arguments = ["doctor", "--reranker-url", running.base_url, "--api-key-file", str(file)]
        ended = CliRunner().invoke(app, arguments)

    assert ended.exit_code == 0, ended.stdout
    assert KEY not in ended.output


def test_the_table_can_be_kept_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "doctor.html"

    with serve(FakeVLLM("reranker")) as server:
        CliRunner().invoke(app, ["doctor", "--reranker-url", server.base_url, "--html", str(page)])

    assert "reranker.template" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    page = str(tmp_path / "no" / "page.html")

    with serve(FakeVLLM("reranker")) as server:
        ended = CliRunner().invoke(app, ["doctor", "--reranker-url", server.base_url, "--html", page])

    assert ended.exit_code == 2
    assert "cannot write" in ended.output


def test_each_of_several_addresses_is_examined_and_a_stranger_among_them_named() -> None:
    fakes = [FakeVLLM("embedding"), FakeVLLM("embedding", seed="other weights")]
    with serve(fakes[0]) as right, serve(fakes[1]) as other, serve(fakes[0]) as twin:
        good = examine(EmbeddingClient(base_url=[right.base_url, twin.base_url]))
        bad = examine(EmbeddingClient(base_url=f"{right.base_url},{other.base_url}"))

    assert {check.name.split(" ")[0] for check in good[:-1]} == {right.base_url, twin.base_url}
    assert (good[-1].name, good[-1].status) == ("embedding.addresses", "ok")
    assert (bad[-1].name, bad[-1].status) == ("embedding.addresses", "fail")
    assert other.base_url in bad[-1].seen
    assert "same weights" in bad[-1].advice


def test_what_is_wrong_at_all_of_several_addresses_is_not_taken_for_several_models() -> None:
    fake = FakeVLLM("embedding", api_key="the-key")
    with serve(fake) as one, serve(fake) as other:
        checks = examine(EmbeddingClient(base_url=[one.base_url, other.base_url], api_key="another"))

    assert (checks[-1].name, checks[-1].status) == ("embedding.addresses", "fail")
    assert checks[-1].advice == "See above what is wrong at each address"
