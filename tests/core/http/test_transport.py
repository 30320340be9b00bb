"""Servers that misbehave on purpose: each call ends in time, in the right result or in one clear error."""

import asyncio
import gzip
import re
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from qwen3_vllm._core.http import exchange
from tests.conftest import Embed
from tests.fake_vllm import END_TOKEN, FakeVLLM
from tests.faults import (
    Chooser,
    Fault,
    Reply,
    Request,
    SocketServer,
    always,
    at_once,
    boast,
    changed,
    cut_off,
    drip,
    drip_body,
    first,
    hang,
    hang_in_body,
    honest,
    instead,
    reset,
    serve,
)

TEXTS = [f"text {number}" for number in range(10)]
TIMEOUT = 0.6  # of clients that meet one of SLOW; others have time, however busy the machine is
SLOW: dict[str, Fault] = {
    "hang before headers": hang,
    "hang in mid-body": hang_in_body,
    "slow headers": drip,
    "slow body": drip_body,
}
EMBEDDINGS = "/v1/embeddings"
BUSY = {"error": {"message": "The engine is currently busy", "type": "Service Unavailable", "code": 503}}


def client_of(server: SocketServer, fault: Fault | None = None, **options: object) -> EmbeddingClient:
    timeout = TIMEOUT if fault in SLOW.values() else 30
    return EmbeddingClient(base_url=server.base_url, **{"timeout": timeout, "batch_size": 4, **options})


def right(texts: list[str]) -> np.ndarray:
    return np.stack([FakeVLLM("embedding").vector(text + END_TOKEN) for text in texts])


def until(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 60
    while not condition() and time.monotonic() < ends:
        time.sleep(0.005)
    return condition()


def assert_right(vectors: np.ndarray, texts: list[str] = TEXTS) -> None:
    np.testing.assert_allclose(vectors, right(texts), atol=1e-6)


# --- faults that pass ----------------------------------------------------------------------------------


def bodiless(connection: socket.socket, reply: Reply) -> None:
    """Announce the right answer's length with a status that has no body."""
    connection.sendall(Reply(204, reply.content, reply.headers).head)


def compressed(connection: socket.socket, reply: Reply) -> None:
    """Compress although nobody asked for it, as some proxies do."""
    headers = reply.headers | {"Content-Encoding": "gzip"}
    honest(connection, Reply(reply.status, gzip.compress(reply.content), headers))


PASSING: dict[str, Fault] = {
    "reset in mid-answer": reset,
    "closed in mid-answer": cut_off,
    "a petabyte announced": boast,
    "500": instead(500),
    "502 with a page": instead(502, "<html><h1>Bad Gateway</h1></html>"),
    "503": instead(503, BUSY),
    "503 with Retry-After": instead(503, BUSY, **{"Retry-After": "1"}),
    "503 with a date": instead(503, BUSY, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "429": instead(429, {"error": "Too many requests"}, **{"Retry-After": "1"}),
    "504": instead(504),
    "500 with status 200": instead(200, {"error": {"message": "EngineCore", "code": 500}}),
}


# A connection that breaks, a refusal, a wrong answer; and time limits, below. The modes wait differently and
# may treat errors differently; what an answer holds is read by the same code in both.
IN_BOTH_MODES = {"reset in mid-answer", "503", "truncated body"}


def each_fault(faults: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Each fault in a sync call, and one of each kind in an async call."""
    modes = [(name, mode) for name in faults for mode in ("sync", "async")]
    kept = [(name, mode) for name, mode in modes if mode == "sync" or name in IN_BOTH_MODES]
    cases = [pytest.param(faults[name], mode, id=f"{mode}-{name}") for name, mode in kept]
    return pytest.mark.parametrize(("fault", "embed"), cases, indirect=["embed"])


@each_fault(PASSING)
def test_a_fault_that_passes_costs_nothing(fault: Fault, embed: Embed) -> None:
    _passes(fault, embed)


def test_a_hang_that_passes_costs_one_time_limit(embed: Embed) -> None:
    at_once(lambda fault: _passes(fault, embed), SLOW.values())


def _passes(fault: Fault, embed: Embed) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, fault)
        client.embed_documents(["warm"])
        server.fault = first(1, fault, EMBEDDINGS)

        assert_right(embed(client, TEXTS))


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_at_the_first_contact_costs_nothing(fault: Fault) -> None:
    _passes_at_the_first_contact(fault)


def test_a_hang_at_the_first_contact_costs_one_time_limit() -> None:
    at_once(_passes_at_the_first_contact, SLOW.values())


def _passes_at_the_first_contact(fault: Fault) -> None:
    with serve(FakeVLLM("embedding"), first(1, fault, EMBEDDINGS)) as server:
        assert_right(client_of(server, fault).embed_documents(TEXTS))


def test_a_status_without_its_body_is_never_taken_for_an_older_answer(embed: Embed) -> None:
    with serve(FakeVLLM("embedding", version="0.12.0")) as server:  # answers in JSON
        client = client_of(server)
        client.embed_documents(TEXTS[:4])
        server.fault = first(1, bodiless, EMBEDDINGS)

        assert_right(embed(client, TEXTS[4:8]), TEXTS[4:8])


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(320)), packer.flush()])


def bomb(connection: socket.socket, reply: Reply) -> None:
    """1.4 MB that would be 320 MB."""
    honest(connection, Reply(reply.status, _bomb(), reply.headers | {"Content-Encoding": "gzip"}))


def endless(connection: socket.socket, reply: Reply) -> None:
    headers = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
    head = Reply(reply.status, b"", headers).head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    connection.sendall(head)
    while True:
        connection.sendall(b"100000\r\n" + bytes(2**20) + b"\r\n")


def endless_without_length(connection: socket.socket, reply: Reply) -> None:
    connection.sendall(reply.head.replace(b"Content-Length", b"X-Was") + reply.content)
    while True:
        connection.sendall(bytes(2**20))


OVERSIZE: dict[str, tuple[Fault, str]] = {
    "compressed": (compressed, "encoding gzip"),
    "a bomb": (bomb, "encoding gzip"),
    "endless chunks": (endless, "more than .* bytes"),
    "endless to the end of the connection": (endless_without_length, "more than .* bytes"),
    "a petabyte announced": (boast, "more than .* bytes"),
    "100 MB": (changed(lambda body: bytes(10**8)), "more than .* bytes"),
}


@pytest.mark.parametrize("at", ["first contact", "later"])
@pytest.mark.parametrize(("fault", "words"), OVERSIZE.values(), ids=OVERSIZE)
def test_an_answer_larger_than_any_right_one_is_not_read(fault: Fault, words: str, at: str) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server)
        if at == "later":
            client.embed_documents(["warm"])
        server.fault = always(fault, EMBEDDINGS)
        server.requests.clear()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        with pytest.raises(errors.InvalidAnswerError, match=words):
            client.embed_documents(TEXTS[:4])

        assert len(server.bodies(EMBEDDINGS)) <= 2
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/tokenize"])
def test_other_answers_have_a_limit_too(path: str) -> None:
    with (
        serve(FakeVLLM("embedding"), always(endless, path)) as server,
        suppress(errors.InvalidAnswerError),
    ):  # without a limit, it would read until the test's time is over
        client_of(server).embed_documents(["x" * 3000])


def test_an_endless_error_is_cut() -> None:
    def fault(connection: socket.socket, reply: Reply) -> None:
        endless(connection, Reply(500, b"", {}))

    with serve(FakeVLLM("embedding"), always(fault, EMBEDDINGS)) as server:
        with pytest.raises(errors.ServerError, match="500") as caught:
            client_of(server, max_retries=0).embed_documents(TEXTS)

        assert len(str(caught.value)) < 1000


def test_a_compressed_error_keeps_its_status(embed: Embed) -> None:
    def fault(connection: socket.socket, reply: Reply) -> None:
        compressed(connection, Reply(503, b"busy"))

    with serve(FakeVLLM("embedding"), first(1, fault, EMBEDDINGS)) as server:
        assert_right(embed(client_of(server), TEXTS))


# --- faults that stay ----------------------------------------------------------------------------------


def no_http(connection: socket.socket, reply: Reply) -> None:
    connection.sendall(b"SSH-2.0\r\n\r\n")


Lasting = tuple[Fault, type[errors.Qwen3VLLMError], str]
LASTING: dict[str, Lasting] = {
    "reset in mid-answer": (reset, errors.ServerUnreachableError, "broke"),
    "closed in mid-answer": (cut_off, errors.ServerUnreachableError, "broke"),
    "500": (instead(500, {"error": {"message": "EngineCore died"}}), errors.ServerError, "EngineCore died"),
    "502 with a page": (instead(502, "<html><h1>Bad Gateway</h1>"), errors.ServerError, "Bad Gateway"),
    "503": (instead(503, BUSY), errors.OverloadedError, "currently busy"),
    "503 with Retry-After": (
        instead(503, BUSY, **{"Retry-After": "1"}),
        errors.OverloadedError,
        "currently busy",
    ),
    "429": (instead(429, {"error": "Too many"}), errors.OverloadedError, "Too many"),
    "401": (instead(401, {"error": "Unauthorized"}), errors.AuthenticationError, "VLLM_API_KEY"),
    "redirect": (instead(307, None, Location="https://other/v1"), errors.ServerError, "https://other/v1"),
    "an HTML page": (
        instead(200, "<html>Log in</html>"),
        errors.InvalidAnswerError,
        "an HTML page: Log in",
    ),
    "truncated body": (changed(lambda body: body[:-3]), errors.InvalidAnswerError, "bytes"),
    "wrong count": (changed(lambda body: body[:-64]), errors.InvalidAnswerError, "bytes|dimensions"),
    "wrong dimensions": (changed(lambda body: body + body), errors.InvalidAnswerError, "32 each"),
    "NaN": (changed(lambda body: b"\xff" * len(body)), errors.InvalidAnswerError, "NaN"),
    "no HTTP": (no_http, errors.ServerUnreachableError, "broke"),
    "unknown encoding": (
        instead(200, [], **{"Content-Encoding": "br"}),
        errors.InvalidAnswerError,
        "encoding br",
    ),
}


@each_fault(LASTING)
def test_a_fault_that_stays_ends_in_one_clear_error(fault: Lasting, embed: Embed) -> None:
    _ends_in_one_error(fault, embed)


def hanging(fault: Fault) -> Lasting:
    return fault, errors.RequestTimeoutError, f"within {TIMEOUT} s"


def test_a_hang_that_stays_ends_in_one_clear_error(embed: Embed) -> None:
    at_once(lambda fault: _ends_in_one_error(hanging(fault), embed), SLOW.values())


def _ends_in_one_error(fault: Lasting, embed: Embed) -> None:
    break_with, kind, words = fault
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, break_with)
        client.embed_documents(["warm"])
        server.requests.clear()
        server.fault = always(break_with)

        with pytest.raises(errors.Qwen3VLLMError, match=words) as caught:
            embed(client, TEXTS)

        assert type(caught.value) is kind
        assert sorted(caught.value.errors) == list(range(10))
        assert server.base_url in str(caught.value)
        if kind is errors.RequestTimeoutError:  # each of three batches waits for at most two time limits
            assert len(server.bodies(EMBEDDINGS)) <= 6


# The first contact asks other routes, which time limits, refusals and pages may end.
@pytest.mark.parametrize("name", ["reset in mid-answer", "hang before headers", "500", "401", "an HTML page"])
def test_a_fault_that_was_always_there_ends_in_one_clear_error(name: str) -> None:
    fault, kind, words = LASTING.get(name) or hanging(SLOW[name])
    with serve(FakeVLLM("embedding"), always(fault)) as server:
        with pytest.raises(kind, match=words):
            client_of(server, fault).embed_documents(TEXTS)

        assert len(server.requests) < 20


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (instead(500), 4),
        (instead(503, BUSY, **{"Retry-After": "1"}), 4),
        (instead(400, {"error": {"message": "no"}}), 1),
        (instead(404), 1),
        (reset, 4),
        (hang, 2),
    ],
    ids=["500", "503", "400", "404", "reset", "hang"],
)
def test_a_request_is_repeated_only_where_that_may_help(fault: Fault, requests: int) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, fault, max_retries=3)
        client.embed_documents(["warm"])
        server.requests.clear()
        server.fault = always(fault)

        with pytest.raises(errors.Qwen3VLLMError):
            client.embed_documents(["one"])

        assert [body["input"] for body in server.bodies(EMBEDDINGS)].count(["one"]) == requests


@pytest.mark.parametrize(
    "fault", [hang, instead(500), instead(503, BUSY), reset], ids=["hang", "500", "503", "reset"]
)
def test_a_dead_server_ends_a_long_call_as_soon_as_a_short_one(fault: Fault) -> None:
    """A thousand texts must not wait for a thousand time limits."""
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, timeout=0.4, max_concurrency=4)
        client.embed_documents(["warm"])
        server.fault = always(fault, EMBEDDINGS)

        with pytest.raises(errors.Qwen3VLLMError) as caught:
            client.embed_documents([f"text {number}" for number in range(1000)])

        assert len(caught.value.errors) == 1000
        assert len(server.bodies(EMBEDDINGS)) < 150


def test_a_hung_server_costs_four_time_limits_whatever_the_number_of_texts() -> None:
    warm = ("embedding", "long texts", "scoring", "one at a time")
    at_once(
        _costs_four_time_limits, [*((kind, True) for kind in warm), ("embedding", False), ("scoring", False)]
    )


def _costs_four_time_limits(case: tuple[str, bool]) -> None:
    kind, warm = case
    long = kind == "long texts"
    texts = [f"text {number} " + "x" * 3000 * long for number in range(600)]
    options = {"timeout": 0.3, "max_concurrency": 1 if kind == "one at a time" else 4, "batch_size": 2}
    with serve(FakeVLLM("reranker" if kind == "scoring" else "embedding")) as server:
        if kind == "scoring":
            reranker = RerankClient(base_url=server.base_url, **options)
            call: Callable[[list[str]], object] = partial(reranker.score, "q")
        else:
            call = EmbeddingClient(base_url=server.base_url, **options).embed_documents
        if warm:
            call(["warm"])
        server.fault = always(hang)
        began = time.monotonic()

        with pytest.raises(errors.RequestTimeoutError):
            call(texts)

        assert time.monotonic() - began < 15  # 20, if each batch waited for its own limit


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_many_calls_to_a_hung_server_end_together(warm: bool) -> None:
    """Those that wait for their turn do not wait for a time limit each."""
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, timeout=0.3, max_concurrency=2)
        if warm:
            client.embed_documents(["warm"])
        server.fault = always(hang)
        began = time.monotonic()

        async def calls() -> list[object]:
            texts = [[f"text {n}"] for n in range(100)]
            return await asyncio.gather(*map(client.aembed_documents, texts), return_exceptions=True)

        results = asyncio.run(calls())

        assert {type(result) for result in results} == {errors.RequestTimeoutError}
        assert time.monotonic() - began < 10  # 15, if each waited for its own limit


def test_a_whole_call_ends_within_its_total_timeout_and_keeps_what_it_has(embed: Embed) -> None:
    texts = [f"text {number}" for number in range(20)]
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, total_timeout=1, max_concurrency=1, batch_size=1)
        client.embed_documents(["warm"])
        server.fault = lambda request: hang if b"text 5" in request.body else honest
        began = time.monotonic()

        with pytest.raises(errors.RequestTimeoutError, match=r"total_timeout, 1 s") as caught:
            embed(client, texts)

        assert 0.9 < time.monotonic() - began < 10
        assert sorted(caught.value.errors) == list(range(5, 20))
        assert caught.value.partial is not None
        assert_right(caught.value.partial[:5], texts[:5])
        assert until(lambda: server.in_flight == 0)
        server.fault = always(honest)
        assert_right(embed(client, texts[:2]), texts[:2])


@pytest.mark.parametrize(
    "fault",
    [
        always(hang, "/v1/models"),
        always(hang, EMBEDDINGS),
        always(instead(503, BUSY, **{"Retry-After": "30"}), EMBEDDINGS),
    ],
    ids=["a question", "a request", "a pause"],
)
def test_the_total_timeout_covers_every_phase(fault: Chooser) -> None:
    with serve(FakeVLLM("embedding"), fault) as server:
        began = time.monotonic()
        with pytest.raises(errors.RequestTimeoutError, match="total_timeout"):
            client_of(server, total_timeout=0.3).embed_documents(TEXTS)

        assert time.monotonic() - began < 10


def test_the_total_timeout_covers_the_wait_for_another_call() -> None:
    """The first asks what the server is, and the others wait for what it learns."""
    with serve(FakeVLLM("embedding"), always(hang, "/v1/models")) as server:
        client = client_of(server, total_timeout=0.5)
        began = time.monotonic()

        async def calls() -> list[object]:
            return await asyncio.gather(
                *(client.aembed_documents(["a"]) for _ in range(3)), return_exceptions=True
            )

        assert {type(result) for result in asyncio.run(calls())} == {errors.RequestTimeoutError}
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("fault", [instead(503, BUSY), instead(429)], ids=["503", "429"])
def test_a_server_that_stays_full_is_asked_less_and_less(fault: Fault) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=32)
        client.embed_documents(["warm"])
        server.fault = always(fault, EMBEDDINGS)
        server.requests.clear()

        with pytest.raises(errors.OverloadedError) as caught:
            client.embed_documents([f"text {number}" for number in range(1024)])

        assert len(caught.value.errors) == 1024
        assert len(server.requests) < 100


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_a_batch_too_large_for_the_queue_is_sent_in_parts(limit: int) -> None:
    """vLLM counts each text as a request."""

    def choose(request: Request) -> Fault:
        full = request.path == EMBEDDINGS and len(request.json["input"]) > limit
        return instead(503, BUSY) if full else honest

    texts = [f"text {number}" for number in range(100)]
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=32)
        client.embed_documents(["warm"])
        server.fault = choose
        server.requests.clear()

        assert_right(client.embed_documents(texts), texts)

        assert len(server.requests) < 200 / limit + 20


class Queue:
    """Takes 40 texts at once, 1,000 a second."""

    def __init__(self) -> None:
        self.lock, self.turn, self.waiting = threading.Lock(), threading.Lock(), 0

    def __call__(self, request: Request) -> Fault:
        count = len(request.json["input"])
        with self.lock:
            if self.waiting + count > 40:
                return instead(503, BUSY)
            self.waiting += count

        def answer(connection: socket.socket, reply: Reply) -> None:
            with self.turn:
                time.sleep(count / 1000)
            with self.lock:
                self.waiting -= count
            honest(connection, reply)

        return answer


def test_a_queue_that_drains_is_waited_for() -> None:
    texts = [f"text {number}" for number in range(320)]
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=32)
        client.embed_documents(["warm"])
        server.fault = Queue()
        server.requests.clear()

        assert_right(client.embed_documents(texts), texts)

        assert len(server.requests) < 100


def test_nonsense_for_all_texts_is_not_asked_for_text_by_text() -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=8)
        client.embed_documents(["warm"])
        server.fault = always(instead(200, "<html>Log in</html>"), EMBEDDINGS)
        server.requests.clear()

        with pytest.raises(errors.InvalidAnswerError):
            client.embed_documents([f"text {number}" for number in range(800)])

        sent = [body["input"] for body in server.bodies(EMBEDDINGS)]
        assert sum(inputs[0].startswith("text") for inputs in sent) <= 100 + 2 * 14
        assert len(sent) < 160


# --- one warning for an outage --------------------------------------------------------------------------


def test_a_server_killed_in_mid_call_gives_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"text {number}" for number in range(400)]
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=1, max_retries=1)
        client.embed_documents(["warm"])
        killed = threading.Event()

        def choose(request: Request) -> Fault:
            if len(server.requests) > 200 and not killed.is_set():
                killed.set()
                threading.Thread(target=server.stop).start()
            return reset if killed.is_set() else honest

        server.fault = choose
        with pytest.raises(errors.ServerUnreachableError):
            client.embed_documents(texts)

    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(r"\d+ requests? failed", warning)
    assert warning.endswith(".")
    assert ".." not in warning


def test_an_absent_server_gives_one_warning(unused_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.ServerUnreachableError) as caught:
        EmbeddingClient(base_url=f"http://127.0.0.1:{unused_port}").embed_documents(TEXTS)

    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(r"\d+ requests? failed(, the first with)?: Cannot connect", warning)
    assert str(caught.value).endswith("serve embedding.")


@pytest.mark.parametrize("words", ["too busy", "too busy.", "too busy..."])
@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_message_ends_in_one_full_stop(words: str, status: int) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, max_retries=0)
        client.embed_documents(["warm"])
        server.fault = always(instead(status, {"error": {"message": words}}))

        with pytest.raises(errors.Qwen3VLLMError) as caught:
            client.embed_documents(["a"])

    assert re.search(r"[^.]\.$", str(caught.value))
    assert ".." not in str(caught.value)


def test_one_poisoned_text_takes_no_other_with_it(embed: Embed) -> None:
    def choose(request: Request) -> Fault:
        return instead(500) if b"poison" in request.body else honest

    texts = ["poison", *(f"text {number}" for number in range(99))]
    with serve(FakeVLLM("embedding"), choose) as server:
        with pytest.raises(errors.ServerError) as caught:
            embed(client_of(server), texts)

        assert sorted(caught.value.errors) == [0]
        assert caught.value.partial is not None
        assert_right(caught.value.partial[1:], texts[1:])


# --- connections ---------------------------------------------------------------------------------------


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


def test_a_refused_connection_says_what_to_start(unused_port: int, embed: Embed) -> None:
    client = EmbeddingClient(base_url=f"http://127.0.0.1:{unused_port}")

    with pytest.raises(errors.ServerUnreachableError, match="qwen3-vllm serve embedding") as caught:
        embed(client, TEXTS)

    assert caught.value.cause == "connect"


def test_a_host_that_takes_no_connection_is_not_waited_for_as_for_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "_CONNECT_SECONDS", 0.2)
    with socket.socket() as full, socket.socket() as first_in_line, socket.socket() as second_in_line:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first_in_line, second_in_line):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        client = EmbeddingClient(base_url=f"http://127.0.0.1:{full.getsockname()[1]}")
        began = time.monotonic()

        with pytest.raises(errors.RequestTimeoutError, match=r"could not connect to .* within 0\.2 s"):
            client.embed_documents(TEXTS)

        assert time.monotonic() - began < 60  # an answer may take 300 s


def test_an_unknown_host_is_told(embed: Embed) -> None:
    with pytest.raises(errors.ServerUnreachableError, match=r"no-such-host\.invalid"):
        embed(EmbeddingClient(base_url="http://no-such-host.invalid", max_retries=0), TEXTS)


def test_tls_to_a_server_without_it_fails_at_once(embedding_server: SocketServer, embed: Embed) -> None:
    client = EmbeddingClient(base_url=embedding_server.base_url.replace("http:", "https:"))

    with pytest.raises(errors.ServerUnreachableError, match="No TLS connection") as caught:
        embed(client, TEXTS)

    assert caught.value.cause == "tls"


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_a_certificate_that_nobody_signed_is_refused_at_once(
    self_signed: ssl.SSLContext, embed: Embed
) -> None:
    with serve(FakeVLLM("embedding"), tls=self_signed) as server:
        with pytest.raises(errors.ServerUnreachableError, match=r"(?i)certificate") as caught:
            embed(EmbeddingClient(base_url=server.base_url), TEXTS)

        assert caught.value.cause == "tls"
        assert server.requests == []


def test_a_server_that_closed_its_idle_connections_is_called_again(embed: Embed) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server)
        client.embed_documents(TEXTS)
        server.restart()

        assert_right(embed(client, TEXTS))


def test_a_server_down_for_a_moment_is_waited_for(embed: Embed) -> None:
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, max_retries=30)
        client.embed_documents(["warm"])
        server.stop()
        loop_free = asyncio.run(_restart_soon(server, client, embed))

        assert_right(loop_free)


async def _restart_soon(server: SocketServer, client: EmbeddingClient, embed: Embed) -> np.ndarray:
    waiting = asyncio.create_task(asyncio.to_thread(embed, client, TEXTS))
    await asyncio.sleep(0.05)
    server.restart()
    return await waiting


class Slow:
    """Answers after 10 ms, and notes how many requests were being answered."""

    def __init__(self) -> None:
        self.fake = FakeVLLM("embedding")
        self.seen: list[int] = []
        self._now: list[Request] = []

    def __call__(self, request: Request) -> Reply | None:
        self._now.append(request)
        self.seen.append(len(self._now))
        time.sleep(0.01)
        self._now.remove(request)
        return self.fake(request)


def test_requests_in_flight_stay_within_the_limit() -> None:
    slow = Slow()
    with serve(slow) as server:
        client = client_of(server, batch_size=1, max_concurrency=3, timeout=30)

        assert_right(client.embed_documents(TEXTS))

    assert max(slow.seen) == 3


def test_calls_at_once_share_the_limit() -> None:
    slow = Slow()
    with serve(slow) as server:
        client = client_of(server, batch_size=1, max_concurrency=3, timeout=30)

        async def calls() -> None:
            await asyncio.gather(*(client.aembed_documents([f"{n}", f"{n}'"]) for n in range(8)))

        asyncio.run(calls())

    assert max(slow.seen) == 3


class Narrow:
    """Refuses what comes while it is answering three requests."""

    def __init__(self) -> None:
        self.refused = 0
        self._room = threading.Semaphore(3)

    def __call__(self, connection: socket.socket, reply: Reply) -> None:
        if not self._room.acquire(blocking=False):
            self.refused += 1
            instead(503, BUSY)(connection, reply)
            return
        try:
            time.sleep(0.01)
        finally:
            self._room.release()
        honest(connection, reply)


def test_a_full_server_gets_fewer_requests_at_once() -> None:
    texts = [f"text {number}" for number in range(100)]
    narrow = Narrow()
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=1, max_concurrency=16, timeout=30, max_retries=6)
        client.embed_documents(["warm"])
        server.fault = always(narrow, EMBEDDINGS)

        assert_right(client.embed_documents(texts), texts)

    assert 0 < narrow.refused < 60


class OneAtATime:
    """Answers one request after another, 0.15 s each, but none whose client has gone: as vLLM does."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def __call__(self, connection: socket.socket, reply: Reply) -> None:
        with self._turn:
            with suppress(BlockingIOError):
                if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise ConnectionAbortedError
            time.sleep(0.15)
        honest(connection, reply)


def test_a_slow_server_gets_what_it_can_answer_in_time() -> None:
    """Sixteen at once wait for 2.4 s, more than the time limit, and would time out again and again."""
    texts = [f"text {number}" for number in range(20)]
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=1, max_concurrency=16, timeout=2)
        client.embed_documents(["warm"])
        server.fault = always(OneAtATime(), EMBEDDINGS)

        assert_right(client.embed_documents(texts), texts)


# --- the user's environment ----------------------------------------------------------------------------


def test_a_netrc_entry_does_not_get_in_the_way_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embed: Embed
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serve(FakeVLLM("embedding", api_key="key")) as server:
        assert_right(embed(client_of(server, api_key="key"), TEXTS))


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, embed: Embed) -> None:
    fake = FakeVLLM("embedding")

    def proxy(request: Request) -> Reply | None:
        path = request.path.removeprefix("http://vllm.invalid:8000")
        return fake(Request(request.method, path, request.headers, request.body))

    with serve(proxy) as server:
        monkeypatch.setenv("http_proxy", server.base_url.replace("://", "://user:hush@"))
        monkeypatch.setenv("no_proxy", "")

        assert_right(embed(EmbeddingClient(base_url="http://vllm.invalid:8000"), TEXTS))

        assert all(path.startswith("http://vllm.invalid:8000/") for path in server.paths())
        assert {r.headers["proxy-authorization"] for r in server.requests} == {"Basic dXNlcjpodXNo"}


def test_no_proxy_is_honoured(
    monkeypatch: pytest.MonkeyPatch, embedding_server: SocketServer, unused_port: int, embed: Embed
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    assert_right(embed(client_of(embedding_server), TEXTS))


def test_a_proxy_that_is_down_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, unused_port: int, embed: Embed
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:hush@127.0.0.1:{unused_port}")
    monkeypatch.setenv("no_proxy", "")

    with pytest.raises(errors.ServerUnreachableError, match=f"proxy.*{unused_port}") as caught:
        embed(EmbeddingClient(base_url="http://vllm.invalid:8000", max_retries=0), TEXTS)

    assert "hush" not in str(caught.value)


NO_TUNNEL: dict[str, tuple[Fault, str, int]] = {
    "407": (instead(407, "who?"), "407 .*HTTPS_PROXY", 1),
    "403": (instead(403, "user:hush may not, nor may dXNlcjpodXNo"), "403", 1),
    "302": (instead(302, None, Location="http://user:hush@login"), "302", 1),
    "502": (instead(502, "no such host"), "502", 2),
    "junk": (no_http, "broke", 2),
    "closed": (reset, "Cannot connect", 2),
}


@pytest.mark.parametrize(("fault", "words", "times"), NO_TUNNEL.values(), ids=NO_TUNNEL)
def test_a_proxy_that_makes_no_tunnel_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    words: str,
    times: int,
    embed: Embed,
) -> None:
    with serve(lambda request: Reply(), always(fault)) as server:
        monkeypatch.setenv("https_proxy", server.base_url.replace("://", "://user:hush@"))
        monkeypatch.setenv("no_proxy", "")
        client = EmbeddingClient(base_url="https://vllm.invalid", model="m", max_retries=1)

        with caplog.at_level("DEBUG"), pytest.raises(errors.ServerUnreachableError, match=words) as caught:
            embed(client, TEXTS)

    assert {r.headers["proxy-authorization"] for r in server.requests} == {"Basic dXNlcjpodXNo"}
    # The models and the version; when the one failed for good, the other is not asked for again.
    assert times <= len(server.requests) <= 2 * times
    error: BaseException | None = caught.value
    while error is not None:
        shown = repr(error) + "".join(traceback.format_exception(error)) + caplog.text
        assert "hush" not in shown
        assert "dXNlcjpodXNo" not in shown
        error = error.__context__


def test_a_token_that_a_proxy_takes_for_a_user_is_not_told(
    monkeypatch: pytest.MonkeyPatch, embed: Embed
) -> None:
    with serve(lambda request: Reply(), always(instead(407, "who is t0ken%2F42, or t0ken/42?"))) as server:
        monkeypatch.setenv("http_proxy", server.base_url.replace("://", "://t0ken%2F42@"))
        monkeypatch.setenv("no_proxy", "")

        with pytest.raises(errors.ServerUnreachableError) as caught:
            embed(EmbeddingClient(base_url="http://vllm.invalid", max_retries=0), TEXTS)

    assert server.requests[0].headers["proxy-authorization"] == "Basic dDBrZW4vNDI6"
    assert "t0ken" not in repr(caught.value)


def test_a_proxy_variable_that_is_no_url_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:hush#1@proxy:3128")
    monkeypatch.setenv("no_proxy", "")

    with pytest.raises(errors.ConfigurationError, match="HTTP_PROXY") as caught:
        EmbeddingClient(base_url="http://vllm.invalid")

    assert "hush" not in "".join(traceback.format_exception(caught.value))
