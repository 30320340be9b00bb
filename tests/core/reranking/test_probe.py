"""What is learned of a rerank server, and by how many questions."""

import json
import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from qwen3_vllm import RerankClient, errors
from qwen3_vllm._core import prompts
from qwen3_vllm._core.reranking.server import Fingerprint, RerankServer
from tests.fake_vllm import DEAF_TEMPLATE, RIGHT_TEMPLATE, STOCK_TEMPLATE, FakeVLLM
from tests.faults import (
    Fault,
    Request,
    SocketServer,
    always,
    at_once,
    changed,
    first,
    hang,
    honest,
    instead,
    serve,
)


def learned(server: SocketServer, **options: object) -> RerankServer:
    client = RerankClient(base_url=server.base_url, **{"timeout": 30, **options})
    client.score("q", ["d"])
    assert client._flows.server.value is not None
    return client._flows.server.value


@pytest.mark.parametrize(
    ("template", "version", "templates", "default_right", "takes_instruction"),
    [
        (None, "0.32.0", False, False, False),
        (RIGHT_TEMPLATE, "0.13.0", False, False, False),
        (RIGHT_TEMPLATE, "0.19.0", True, True, False),
        (RIGHT_TEMPLATE, "0.22.0", True, True, True),
        (STOCK_TEMPLATE, "0.32.0", True, False, False),
        (DEAF_TEMPLATE, "0.32.0", True, True, False),
    ],
)
def test_who_templates_and_how_well_is_found_out(
    template: str | None, version: str, templates: bool, default_right: bool, takes_instruction: bool
) -> None:
    with serve(FakeVLLM(template=template, version=version)) as server:
        found = learned(server)

    assert (found.templates, found.default_right, found.takes_instruction) == (
        templates,
        default_right,
        takes_instruction,
    )


def test_asking_takes_few_requests(rerank_server: SocketServer) -> None:
    learned(rerank_server)

    assert len(rerank_server.requests) - 1 == 8


@pytest.mark.parametrize("template", [None, RIGHT_TEMPLATE, STOCK_TEMPLATE], ids=["none", "right", "stock"])
def test_a_proxy_may_drop_the_token_counts(template: str | None) -> None:
    fake = FakeVLLM(template=template, counts=False)
    with serve(fake) as server:
        scores = RerankClient(base_url=server.base_url).score("q", ["d"])

    expected = fake.probability(prompts.rerank_prompt("q", "d", prompts.DEFAULT_INSTRUCTION))
    np.testing.assert_allclose(scores, [expected], atol=1e-6)


def rounded(body: bytes) -> bytes:
    """Move each logit, as 16 bits may between two routes."""
    answer = json.loads(body)
    for item in answer["data"]:
        item["score"] = 1 / (1 + (1 / item["score"] - 1) * math.exp(-0.2))
    return json.dumps(answer).encode()


def test_a_right_template_of_a_16_bit_server_does_not_contradict_template_server() -> None:
    with serve(FakeVLLM(template=RIGHT_TEMPLATE), always(changed(rounded), "/v1/score")) as server:
        found = learned(server, template="server")

    assert found.default_right


@pytest.mark.parametrize("path", ["/v1/models", "/v1/score", "/classify", "/tokenize"])
def test_a_fault_while_asking_does_not_mislead(path: str) -> None:
    with serve(FakeVLLM(template=STOCK_TEMPLATE), first(1, instead(503), path)) as server:
        found = learned(server)

    assert (found.templates, found.default_right, found.classifies) == (True, False, True)


@pytest.mark.parametrize("path", ["/v1/score", "/classify"])
def test_an_answer_that_does_not_come_is_an_error_not_a_guess(path: str) -> None:
    def choose(request: Request) -> Fault:
        return instead(503) if request.path == path else honest

    with serve(FakeVLLM(), choose) as server, pytest.raises(errors.ServerError):
        RerankClient(base_url=server.base_url).score("q", ["d"])


def test_busy_is_not_lacking_when_a_simpler_way_is_tried() -> None:
    def choose(request: Request) -> Fault:
        return {"/v1/score": instead(404), "/v1/rerank": instead(503)}.get(request.path, honest)

    with serve(FakeVLLM(), choose) as server, pytest.raises(errors.OverloadedError):
        RerankClient(base_url=server.base_url, max_retries=0).score("q", ["d"])


@pytest.mark.parametrize("counts", [True, False])
def test_where_no_messages_are_rendered_a_template_is_known_by_its_tokens(counts: bool) -> None:
    def choose(request: Request) -> Fault:
        return instead(400) if b'"messages"' in request.body else honest

    fake = FakeVLLM(template=RIGHT_TEMPLATE, missing=("/classify",), counts=counts)
    with serve(fake, choose) as server:
        if counts:
            assert learned(server).default_right
        else:
            with pytest.raises(errors.WrongServerError, match="could not check"):
                learned(server)


class Joining(FakeVLLM):
    """Puts a line end between the texts of a pair."""

    def _prompt(self, query: str, document: str, body: dict[str, object]) -> list[int]:
        return self.encode(f"{query}\n{document}")


class Positive(FakeVLLM):
    """Embeds, into vectors whose cosines may be probabilities."""

    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        return np.abs(super().vector(prompt, dimensions))


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (Joining(), "puts tokens of its own between the two texts"),
        (Positive("embedding"), "an embedding model"),
    ],
)
def test_what_scores_pairs_but_not_as_qwen3_does_is_named(server: FakeVLLM, words: str) -> None:
    with serve(server) as running, pytest.raises(errors.WrongServerError, match=words):
        RerankClient(base_url=running.base_url).score("q", ["d"])


def test_a_reranker_that_refuses_to_compare_a_text_with_itself_is_not_taken_for_an_embedding_model() -> None:
    def choose(request: Request) -> Fault:
        itself = request.path == "/v1/score" and request.json["text_1"] == request.json["text_2"][0]
        return instead(400) if itself else honest

    fake = FakeVLLM(missing=("/classify",))
    with serve(fake, choose) as server:
        scores = RerankClient(base_url=server.base_url).score("q", ["d"])

    expected = fake.probability(prompts.rerank_prompt("q", "d", prompts.DEFAULT_INSTRUCTION))
    np.testing.assert_allclose(scores, [expected], atol=1e-6)


def test_a_server_that_hangs_while_asked_is_not_called_wrong() -> None:
    def check(case: tuple[str, str]) -> None:
        path, limit = case
        fake = FakeVLLM(template=RIGHT_TEMPLATE, missing=("/classify",))
        with serve(fake, always(hang, path)) as server:
            client = RerankClient(base_url=server.base_url, max_retries=0, **{limit: 0.5})

            with pytest.raises(errors.RequestTimeoutError) as caught:
                client.score("q", ["d"])

        assert caught.value.cause == limit

    at_once(check, product(("/tokenize", "/classify"), ("timeout", "total_timeout")))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Fingerprint(74, 0.0), True),
        (Fingerprint(74, 0.01), True),
        (Fingerprint(2, 0.0), False),
        (Fingerprint(74, 3.0), False),
    ],
)
def test_a_set_up_is_known_by_its_fingerprint(other: Fingerprint, same: bool) -> None:
    assert Fingerprint(74, 0.0).matches(other) is same
