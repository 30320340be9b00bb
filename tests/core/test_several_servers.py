"""A client of several addresses: the work is shared, nothing is lost, and a stranger is named."""

import asyncio
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from qwen3_vllm._core.client import transport_of
from qwen3_vllm._core.embedding.same_model import PROBE
from qwen3_vllm._core.http.flow import send_one
from qwen3_vllm._core.http.several import group as group_module
from qwen3_vllm._core.http.several import servers as servers_module
from qwen3_vllm._core.reranking.client import server_of
from qwen3_vllm._core.reranking.same_model import PROBES
from qwen3_vllm._core.vllm_api.calls import tokenize
from tests.conftest import Embed, Score
from tests.fake_vllm import END_TOKEN, RIGHT_TEMPLATE, STOCK_TEMPLATE, FakeVLLM
from tests.faults import Fault, Reply, Request, SocketServer, always, hang, honest, instead, serve

EMBEDDINGS = "/v1/embeddings"
TEXTS = [f"text {number}" for number in range(60)]


@contextmanager
def serving(*fakes: Callable[[Request], Reply | None]) -> Iterator[list[SocketServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serve(fake)) for fake in fakes]


def embedders(count: int) -> list[FakeVLLM]:
    return [FakeVLLM("embedding") for _ in range(count)]


def client_of(servers: Sequence[SocketServer], **options: object) -> EmbeddingClient:
    urls = [server.base_url for server in servers]
    return EmbeddingClient(base_url=urls, **{"timeout": 30, "batch_size": 4, **options})


def right(texts: Sequence[str]) -> np.ndarray:
    fake = FakeVLLM("embedding")
    return np.stack([fake.vector(text + END_TOKEN, None) for text in texts])


def embedded(server: SocketServer) -> list[str]:
    return [text for body in server.bodies(EMBEDDINGS) for text in body["input"] if text in TEXTS]


def test_documents_are_shared_and_keep_their_order(embed: Embed) -> None:
    with serving(*embedders(2)) as servers:
        vectors = embed(client_of(servers), TEXTS)

        np.testing.assert_allclose(vectors, right(TEXTS), atol=1e-6)
        done = [embedded(server) for server in servers]
        assert sorted(done[0] + done[1]) == sorted(TEXTS)  # each once
        assert all(done)


def test_scores_are_shared_and_keep_their_order(score: Score) -> None:
    with serving(FakeVLLM(), FakeVLLM()) as servers:
        one = RerankClient(base_url=servers[0].base_url)
        client = RerankClient(base_url=[server.base_url for server in servers])

        np.testing.assert_allclose(score(client, "q", TEXTS), score(one, "q", TEXTS), atol=1e-6)
        assert client.rerank("q", TEXTS, top_n=3) == one.rerank("q", TEXTS, top_n=3)
        assert all(len(server.requests) > 10 for server in servers)


def test_each_server_is_asked_in_its_own_way() -> None:
    fakes = [FakeVLLM("embedding", version="0.10.0"), FakeVLLM("embedding", model="Another name")]
    with serving(*fakes) as servers:
        np.testing.assert_allclose(client_of(servers).embed_documents(TEXTS), right(TEXTS), atol=1e-6)
        encodings = [server.bodies(EMBEDDINGS)[-1]["encoding_format"] for server in servers]
        assert encodings == ["base64", "bytes_only"]


@pytest.mark.parametrize("dead", [0, 1])
def test_a_server_that_is_down_is_done_without(dead: int) -> None:
    with serving(*embedders(2)) as servers:
        servers[dead].stop()

        np.testing.assert_allclose(client_of(servers).embed_documents(TEXTS), right(TEXTS), atol=1e-6)


def test_the_work_of_a_server_that_dies_is_done_by_the_others(embed: Embed) -> None:
    dying, answers = FakeVLLM("embedding"), iter(range(8))

    def answer(request: Request) -> Reply | None:
        if next(answers, None) is None:
            threading.Thread(target=servers[0].stop).start()
            return None
        return dying(request)

    with serving(answer, *embedders(1)) as servers:
        np.testing.assert_allclose(embed(client_of(servers), TEXTS), right(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    "fault",
    [
        instead(500, {"error": "broken"}),
        instead(401, {"error": "Unauthorized"}),
        instead(404, {"detail": "Not Found"}),
        instead(200, "<html>"),
        instead(429, {"error": "too many"}),
    ],
)
def test_a_server_that_fails_everything_costs_nothing(fault: Fault) -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(["both are met"])
        servers[0].fault = always(fault)

        for _ in range(3):
            np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)


def test_a_server_that_is_full_is_not_waited_for_while_another_has_room() -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(["both are met"])
        full = instead(429, {"error": "too many"}, **{"Retry-After": "60"})  # 1.2 s here
        servers[0].fault = always(full, EMBEDDINGS)
        began = time.monotonic()

        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)
        assert time.monotonic() - began < 1


def test_a_server_that_hangs_costs_one_time_limit() -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers, timeout=0.6)
        client.embed_documents(["both are met"])
        servers[0].fault = always(hang)
        began = time.monotonic()

        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)
        assert 0.6 <= time.monotonic() - began < 20
        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)


def test_when_all_are_dead_the_error_names_each(embed: Embed) -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(["all are well"])
        for server in servers:
            server.stop()

        with pytest.raises(errors.ServerUnreachableError) as caught:
            embed(client, TEXTS)
        assert all(server.base_url in str(caught.value) for server in servers)
        for server in servers:
            server.restart()
        np.testing.assert_allclose(embed(client, TEXTS), right(TEXTS), atol=1e-6)


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_a_stranger_is_refused_by_name(kind: str) -> None:
    with serving(FakeVLLM("embedding"), FakeVLLM(kind, seed="other weights")) as servers:  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(errors.WrongServerError, match=servers[1].base_url):
                client_of(servers).embed_documents(["a"])


def test_a_reranker_of_other_weights_is_refused_by_name() -> None:
    with serving(FakeVLLM(), FakeVLLM(seed="other weights")) as servers:
        client = RerankClient(base_url=[server.base_url for server in servers])
        with pytest.raises(errors.WrongServerError, match="gives other scores"):
            client.score("q", ["d"])


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_a_server_of_another_context_length_is_refused_by_name(kind: str) -> None:
    fakes = [FakeVLLM(kind, context=context) for context in (2048, 1024)]  # type: ignore[arg-type]
    with serving(*fakes) as servers, pytest.raises(errors.WrongServerError, match="context") as caught:
        few_of(kind, servers)
    assert all(server.base_url in str(caught.value) for server in servers)
    assert "--max-model-len" in str(caught.value)


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_one_token_more_for_an_older_release_is_the_same_context(kind: str) -> None:
    fakes = [FakeVLLM(kind, context=2049, version="0.31.0"), FakeVLLM(kind, context=2048)]  # type: ignore[arg-type]
    with serving(*fakes) as servers:
        few_of(kind, servers)


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_a_server_started_anew_with_another_context_length_is_noticed(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(FakeVLLM(kind), FakeVLLM(kind)) as servers:  # type: ignore[arg-type]
        again = few_of(kind, servers)
        servers[1].restart(FakeVLLM(kind, context=1024))  # type: ignore[arg-type]

        for _ in range(3):
            again()
        assert f"{servers[1].base_url} has a context of 1024 tokens" in caplog.text


def test_it_is_said_when_a_stranger_is_one_for_another_reason(caplog: pytest.LogCaptureFixture) -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(TEXTS)
        for fake, reason in (
            (FakeVLLM("embedding", seed="other weights"), "gives other vectors"),
            (FakeVLLM("embedding", context=1024), "has a context of 1024 tokens"),
        ):
            servers[1].restart(fake)
            due(client)
            client.embed_documents(TEXTS)
            until(lambda: f"{servers[1].base_url} {reason}" in caplog.text)  # noqa: B023


def few_of(kind: str, servers: Sequence[SocketServer]) -> Callable[[], object]:
    """Embed or score some texts with one client of all servers; returns what does so again."""
    urls = [server.base_url for server in servers]
    if kind == "embedding":
        embedding = EmbeddingClient(base_url=urls, batch_size=4)
        again: Callable[[], object] = lambda: embedding.embed_documents(TEXTS)  # noqa: E731
    else:
        reranking = RerankClient(base_url=urls, batch_size=4)
        again = lambda: reranking.score("q", TEXTS)  # noqa: E731
    again()
    return again


def test_rerankers_may_have_templates_or_not(score: Score) -> None:
    fakes = [FakeVLLM(), FakeVLLM(template=RIGHT_TEMPLATE), FakeVLLM(template=STOCK_TEMPLATE)]
    with serving(*fakes) as servers:
        one = RerankClient(base_url=servers[0].base_url)
        client = RerankClient(base_url=[server.base_url for server in servers])

        np.testing.assert_allclose(score(client, "q", TEXTS), score(one, "q", TEXTS), atol=1e-6)


def test_a_server_that_returns_is_checked_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(*embedders(2)) as servers:
        servers[1].stop()
        client = client_of(servers)
        client.embed_documents(["one is met"])
        servers[1].restart(FakeVLLM("embedding", seed="other weights"))
        due(client)

        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)
        until(lambda: servers[1].base_url in caplog.text and "other vectors" in caplog.text)
        assert not embedded(servers[1])

        servers[1].restart(FakeVLLM("embedding"))
        due(client)
        until(lambda: embedded(servers[1]), lambda: client.embed_documents(TEXTS))


def due(client: EmbeddingClient) -> None:
    """Let the time come to try again what was set aside."""
    for server in client._transport._group._made[1].servers:  # type: ignore[attr-defined]
        server.health._again_at = 0.0


def until(condition: Callable[[], object], work: Callable[[], object] = lambda: time.sleep(0.01)) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        work()


def test_max_concurrency_is_the_total() -> None:
    now, most, lock = 0, 0, threading.Lock()
    fake = FakeVLLM("embedding")

    def answer(request: Request) -> Reply | None:
        nonlocal now, most
        if request.path != EMBEDDINGS or request.json["input"][0] not in TEXTS:
            return fake(request)  # what a server is, and whether it is another's like, is asked besides
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return fake(request)

    with serving(answer, answer, answer) as servers:
        client = client_of(servers, max_concurrency=3)
        client.embed_documents(["all are met"])
        most = 0
        threads = [threading.Thread(target=client.embed_documents, args=(TEXTS,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 3


def test_of_three_servers_the_first_is_kept_for_queries() -> None:
    with serving(*embedders(3)) as servers:
        client = client_of(servers)
        client.embed_documents(TEXTS)

        assert not embedded(servers[0])
        assert embedded(servers[1])
        assert embedded(servers[2])
        client.embed_queries(["q"])
        assert servers[0].requests[-1].json["input"][0].startswith("Instruct")


def test_bulk_goes_to_the_kept_server_when_the_others_are_dead() -> None:
    with serving(*embedders(3)) as servers:
        client = client_of(servers)
        client.embed_queries(["all are met"])
        servers[1].stop()
        servers[2].stop()

        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)


def test_the_total_timeout_keeps_what_is_done() -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers, total_timeout=1, timeout=30)
        client.embed_documents(["both are met"])
        for server in servers:
            server.fault = lambda request: hang if b"text 5" in request.body else honest

        with pytest.raises(errors.RequestTimeoutError, match=r"total_timeout, 1 s") as caught:
            client.embed_documents(TEXTS)

    assert caught.value.partial is not None
    done = sorted(set(range(60)) - set(caught.value.errors))
    assert 5 not in done and len(done) > 30
    np.testing.assert_allclose(caught.value.partial[done], right([TEXTS[n] for n in done]), atol=1e-6)


def test_servers_that_load_are_waited_for_without_a_warning_for_each_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(*embedders(2)) as servers:
        for server in servers:
            server.stop()
        threading.Timer(1, servers[1].restart).start()
        client = client_of(servers)

        client.wait_until_ready(30)

    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) <= 1  # of the one that is still not there when the other is
    assert all(servers[0].base_url in warning for warning in warnings)


def test_what_one_server_is_asked_goes_to_one_of_them() -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)

        tokens = transport_of(client).run(send_one(tokenize("Qwen3", "abc")))

        assert len(tokens) == 4
        assert [path for server in servers for path in server.paths()].count("/tokenize") == 1
        for server in servers:
            server.stop()
        with pytest.raises(errors.ServerUnreachableError):
            transport_of(client).run(send_one(tokenize("Qwen3", "abc")))
        with pytest.raises(errors.ServerUnreachableError):
            client.embed_documents(TEXTS)
        with pytest.raises(errors.ServerUnreachableError, match="None of 2 servers can be used"):
            transport_of(client).run(send_one(tokenize("Qwen3", "abc")))


def test_a_query_that_is_too_long_is_so_on_every_server() -> None:
    with serving(FakeVLLM(), FakeVLLM()) as servers:
        client = RerankClient(base_url=[server.base_url for server in servers])

        with pytest.raises(errors.TooLongError, match="the query is too long"):
            client.score("q" * 3000, ["a", "b"])

        assert client.score("q", ["a", "b"]).shape == (2,)


def test_what_rerankers_have_in_common_is_what_one_of_them_is() -> None:
    with serving(FakeVLLM(), FakeVLLM()) as servers:
        client = RerankClient(base_url=[server.base_url for server in servers])

        assert server_of(client).model == "Qwen3"


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_a_server_that_refuses_what_it_is_checked_by_is_done_without(kind: str) -> None:
    def choose(request: Request) -> Fault:
        probes = (PROBE.encode(), PROBES[-1].encode())
        return instead(400) if any(probe in request.body for probe in probes) else honest

    with serving(FakeVLLM(kind), FakeVLLM(kind)) as servers:  # type: ignore[arg-type]
        servers[0].fault = choose
        urls = [server.base_url for server in servers]
        if kind == "embedding":
            vectors = EmbeddingClient(base_url=urls).embed_documents(TEXTS)
            np.testing.assert_allclose(vectors, right(TEXTS), atol=1e-6)
        else:
            assert RerankClient(base_url=urls).score("q", TEXTS).shape == (60,)


def test_usage_is_of_all_servers() -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(TEXTS)
        assert client.usage.requests == len(TEXTS) / 4


def test_a_copy_from_a_pickle_has_the_addresses() -> None:
    with serving(*embedders(2)) as servers:
        client = pickle.loads(pickle.dumps(client_of(servers)))
        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)


async def test_a_cancelled_call_gives_its_turns_back() -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers, max_concurrency=2)
        await client.aembed_documents(["both are met"])
        for server in servers:
            server.fault = always(hang, EMBEDDINGS)
        call = asyncio.create_task(client.aembed_documents(TEXTS))
        await asyncio.to_thread(until, lambda: sum(server.in_flight for server in servers) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for server in servers:
            server.fault = always(honest)

        vectors = await client.aembed_documents(TEXTS)
        np.testing.assert_allclose(vectors, right(TEXTS), atol=1e-6)


def test_a_bad_text_is_named_by_its_place_and_the_others_embedded() -> None:
    with serving(*embedders(2)) as servers:
        texts = [*TEXTS, "\ud800"]
        with pytest.raises(errors.InputError, match="document 60") as caught:
            client_of(servers).embed_documents(texts)
        assert caught.value.partial is not None
        np.testing.assert_allclose(caught.value.partial[:60], right(TEXTS), atol=1e-6)


def test_long_texts_are_cut_on_every_server(caplog: pytest.LogCaptureFixture) -> None:
    fakes = [FakeVLLM("embedding", context=64), FakeVLLM("embedding", context=64)]
    texts = [f"{number} " * 40 for number in range(10)]
    with serving(*fakes) as servers, serve(FakeVLLM("embedding", context=64)) as one:
        expected = EmbeddingClient(base_url=one.base_url).embed_documents(texts)
        caplog.clear()

        np.testing.assert_allclose(client_of(servers).embed_documents(texts), expected, atol=1e-6)
        assert "10 of 10 documents had to be cut" in caplog.text


def test_a_server_that_hangs_is_noticed_long_before_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "_SILENCE", 0.1)
    with serving(*embedders(2)) as servers:
        client = client_of(servers, timeout=300)
        client.embed_documents(["both are met"])
        servers[0].fault = always(hang)

        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)


def test_a_server_that_takes_long_but_lives_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TEXTS[:8]
    monkeypatch.setattr(servers_module, "_SILENCE", 0.5)  # which a busy machine has for GET /health

    def slow(connection: socket.socket, reply: Reply) -> None:
        time.sleep(0.9)
        honest(connection, reply)

    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(["both are met"])
        servers[0].fault = lambda request: slow if b'"text ' in request.body else honest
        client.embed_documents(texts)
        assert len(embedded(servers[0])) >= 4
        assert sorted(embedded(servers[0]) + embedded(servers[1])) == sorted(texts)  # none was sent again


def test_many_may_die_at_once_while_one_is_left() -> None:
    with serving(*embedders(8)) as servers:
        client = client_of(servers)
        client.embed_documents(["all are met"])
        for server in servers[:7]:
            server.stop()

        np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)


def test_a_text_that_breaks_every_server_fails_alone() -> None:
    with serving(*embedders(6)) as servers:
        client = client_of(servers)
        client.embed_documents(["all are met"])
        broken = instead(500, {"error": "broken"})
        for server in servers:
            server.fault = lambda request: broken if b'"text 7"' in request.body else honest

        with pytest.raises(errors.ServerError) as caught:
            client.embed_documents(TEXTS)
        assert {7} <= set(caught.value.errors) <= {4, 5, 6, 7}  # its request
        tried = [server.bodies(EMBEDDINGS) for server in servers]
        assert sum("text 7" in body["input"] for bodies in tried for body in bodies) <= 10


def test_a_server_started_anew_with_other_weights_between_calls_is_noticed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_documents(TEXTS)
        servers[1].restart(FakeVLLM("embedding", seed="other weights"))

        for _ in range(3):
            np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)
        assert servers[1].base_url in caplog.text
        assert "other vectors" in caplog.text


def test_a_reranker_started_anew_with_other_weights_between_calls_is_noticed() -> None:
    with serving(FakeVLLM(), FakeVLLM()) as servers:
        client = RerankClient(base_url=[server.base_url for server in servers])
        expected = client.score("q", TEXTS)
        servers[1].restart(FakeVLLM(seed="other weights"))

        for _ in range(3):
            np.testing.assert_allclose(client.score("q", TEXTS), expected, atol=1e-6)


def test_a_query_after_a_rest_does_not_wait_for_a_probe_too(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def together(connection: socket.socket, reply: Reply) -> None:
        both.wait(60)
        honest(connection, reply)

    with serving(*embedders(2)) as servers:
        client = client_of(servers)
        client.embed_queries(["both are met"])
        for server in servers:
            server.fault = always(together, EMBEDDINGS)
            for connection in list(server.connections):
                connection.shutdown(socket.SHUT_RDWR)  # as vLLM does after some seconds
        monkeypatch.setattr(group_module, "REST_SECONDS", 0.0)

        client.embed_queries(["q"])
        asked = [text for server in servers for body in server.bodies(EMBEDDINGS) for text in body["input"]]
        assert asked.count(PROBE) == 3


def test_a_server_that_closes_each_connection_is_used_all_the_same() -> None:
    fake = FakeVLLM("embedding")

    def closes(connection: socket.socket, reply: Reply) -> None:
        honest(connection, Reply(reply.status, reply.content, {**reply.headers, "Connection": "close"}))

    with serving(fake, fake) as servers:
        servers[1].fault = always(closes)
        client = client_of(servers)
        for _ in range(3):
            np.testing.assert_allclose(client.embed_documents(TEXTS), right(TEXTS), atol=1e-6)
        assert embedded(servers[1])
