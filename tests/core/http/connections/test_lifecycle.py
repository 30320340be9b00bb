"""Clients over their lives: threads, event loops, forks, cancelled calls, and long runs full of faults."""

import asyncio
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient, errors
from qwen3_vllm._core.http.connections.loop import background
from tests import faults
from tests.fake_vllm import END_TOKEN, FakeVLLM
from tests.faults import (
    Fault,
    Request,
    SocketServer,
    always,
    first,
    hang,
    hang_in_body,
    honest,
    instead,
    serve,
)

EMBEDDINGS = "/v1/embeddings"


def client_of(server: SocketServer, **options: object) -> EmbeddingClient:
    return EmbeddingClient(base_url=server.base_url, **{"timeout": 30, **options})


def right(texts: list[str]) -> np.ndarray:
    fake = FakeVLLM("embedding")
    return np.stack([fake.vector(text + END_TOKEN) for text in texts])


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for something that another thread does."""
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.005)
    return condition()


# --- cancelled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [hang, hang_in_body], ids=["before headers", "in mid-body"])
async def test_a_cancelled_call_leaves_no_request_running(
    embedding_server: SocketServer, fault: Fault
) -> None:
    client = client_of(embedding_server, batch_size=1)
    await client.aembed_documents(["warm"])
    embedding_server.fault = always(fault)
    task = asyncio.create_task(client.aembed_documents([f"text {n}" for n in range(5)]))
    assert await asyncio.to_thread(until, lambda: embedding_server.in_flight == 5)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await asyncio.to_thread(until, lambda: embedding_server.in_flight == 0)
    seen = len(embedding_server.requests)
    await asyncio.sleep(0.05)
    assert len(embedding_server.requests) == seen
    embedding_server.fault = always(honest)
    np.testing.assert_allclose(await client.aembed_documents(["a"]), right(["a"]), atol=1e-6)


async def test_a_call_cancelled_while_it_asks_lets_the_others_ask(embedding_server: SocketServer) -> None:
    """It held the lock that keeps the question from being asked twice."""
    client = client_of(embedding_server)
    embedding_server.fault = first(1, hang, "/v1/models")
    asking = asyncio.create_task(client.aembed_documents(["a"]))
    await asyncio.to_thread(until, lambda: embedding_server.in_flight == 1)
    waiting = [asyncio.create_task(client.aembed_documents([name])) for name in "bcd"]
    await asyncio.sleep(0.02)

    waiting[0].cancel()
    asking.cancel()

    await asyncio.wait_for(asyncio.gather(*waiting[1:]), timeout=60)
    assert asking.cancelled() or await _is_cancelled(asking)


async def _is_cancelled(task: asyncio.Task[object]) -> bool:
    await asyncio.wait([task])
    return task.cancelled()


async def test_a_call_under_a_time_limit_of_the_caller_ends(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)
    embedding_server.fault = always(hang)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.aembed_documents(["a"])

    assert await asyncio.to_thread(until, lambda: embedding_server.in_flight == 0)


@pytest.mark.usefixtures("terminal_signals")
def test_ctrl_c_ends_a_sync_call_and_its_requests(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)
    client.embed_documents(["warm"])
    before = len(embedding_server.requests)
    embedding_server.fault = always(hang)

    def press() -> None:
        until(lambda: len(embedding_server.requests) > before)  # then the call has begun
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        client.embed_documents(["a"])
    pressing.join()

    assert until(lambda: embedding_server.in_flight == 0)


# --- threads and event loops ---------------------------------------------------------------------------


def test_threads_share_a_client(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)
    texts = [[f"{thread} {n}" for n in range(40)] for thread in range(16)]

    with ThreadPoolExecutor(16) as pool:
        all_vectors = list(pool.map(client.embed_documents, texts))

    for mine, vectors in zip(texts, all_vectors, strict=True):
        np.testing.assert_allclose(vectors, right(mine), atol=1e-6)
    assert embedding_server.paths().count("/v1/models") == 1


def test_event_loops_one_after_another_share_a_client(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)

    for text in "abcde":
        vectors = asyncio.run(client.aembed_documents([text]))
        np.testing.assert_allclose(vectors, right([text]), atol=1e-6)
        np.testing.assert_allclose(client.embed_documents([text]), right([text]), atol=1e-6)


def test_event_loops_at_once_share_a_client(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server)

    async def calls(loop: int) -> None:
        names = [f"{loop} {n}" for n in range(8)]
        vectors = await asyncio.gather(*(client.aembed_documents([name]) for name in names))
        np.testing.assert_allclose(np.concatenate(vectors), right(names), atol=1e-6)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda loop: asyncio.run(calls(loop)), range(6)))


async def test_a_sync_call_works_inside_a_running_event_loop(embedding_server: SocketServer) -> None:
    vectors = client_of(embedding_server).embed_documents(["a"])

    np.testing.assert_allclose(vectors, right(["a"]), atol=1e-6)


# --- forks ---------------------------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> bool:
    """Whether `work` succeeds in a forked child, in time."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_used_client_works_in_a_forked_child_and_goes_on_in_the_parent(
    embedding_server: SocketServer,
) -> None:
    client = client_of(embedding_server)
    client.embed_documents(["before"])

    def work() -> None:
        np.testing.assert_allclose(client.embed_documents(["a"]), right(["a"]), atol=1e-6)
        np.testing.assert_allclose(asyncio.run(client.aembed_documents(["b"])), right(["b"]), atol=1e-6)

    assert in_child(work)
    assert in_child(work)
    np.testing.assert_allclose(client.embed_documents(["after"]), right(["after"]), atol=1e-6)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_another_thread_asks_or_embeds_does_not_block_the_child(
    embedding_server: SocketServer,
) -> None:
    """The lock, and the permits of requests in flight, belong to a loop that the child does not have."""
    asking = client_of(embedding_server, max_retries=30)  # until the server is back, at the end
    busy = client_of(embedding_server, max_retries=30, max_concurrency=1)
    busy.embed_documents(["warm"])
    embedding_server.fault = first(2, hang)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(asking.embed_documents, [name]) for name in "ab"]
        calls += [pool.submit(busy.embed_documents, [name]) for name in "cd"]
        assert until(lambda: embedding_server.in_flight == 2)
        time.sleep(0.05)  # the second of each pair waits, which binds locks to the parent's loop

        assert in_child(lambda: asking.embed_documents(["x"]))
        assert in_child(lambda: busy.embed_documents(["x"]))

        embedding_server.restart()
        for call in calls:
            assert call.result().shape == (1, 16)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_pickled_client_works_in_another_process(embedding_server: SocketServer, tmp_path: Path) -> None:
    client = client_of(embedding_server)
    client.embed_documents(["a"])
    saved = tmp_path / "client.pickle"
    saved.write_bytes(pickle.dumps(client))

    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).embed_documents(['a']).shape)"
    assert run_code(code, str(saved)) == "(1, 16)\n"


# Calls at each point of an interpreter's end: it waits for threads that are not daemons, runs what was
# registered, the last first, and lets the globals go.
AT_THE_END = """
import atexit, sys, threading, weakref

def call(where):
    try:
        print(where, client.embed_documents(["a"]).shape, sep=": ", flush=True)
    except Exception as error:
        print(where, type(error).__name__, error, sep=": ", flush=True)

class A:
    def __del__(self, call=call):
        call("__del__ of a global")

class B:
    pass

def after(wait, where):
    wait()
    call(where)

a, b, ending = A(), B(), threading.Event()
weakref.finalize(b, call, "a finalizer, made before")
atexit.register(call, "atexit, registered before")
atexit.register(lambda: daemon.join())
atexit.register(ending.set)
from qwen3_vllm import EmbeddingClient
client = EmbeddingClient(base_url=sys.argv[1], timeout=30)
client.embed_documents(["warm"])
atexit.register(call, "atexit, registered after")
goes_on = threading.Thread(target=after, args=(threading.main_thread().join, "a thread that goes on"))
daemon = threading.Thread(target=after, args=(ending.wait, "a daemon thread's next call"), daemon=True)
goes_on.start()
daemon.start()
"""


def run_code(code: str, *arguments: str) -> str:
    """What a program prints, which must end quietly."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_call_while_the_interpreter_ends_succeeds_or_fails_at_once(embedding_server: SocketServer) -> None:
    lines = run_code(AT_THE_END, embedding_server.base_url).splitlines()

    said = dict(line.split(": ", 1) for line in lines)
    for where in ("a thread that goes on", "atexit, registered after"):
        assert said.pop(where) == "(1, 16)"
    assert len(said) == 4
    assert all("The interpreter is ending" in words for words in said.values())


UNDER_WAY = """
import atexit, sys, threading
joined = sys.argv[2] == "joined"
atexit.register(lambda: thread.join() if joined else None)
from qwen3_vllm import EmbeddingClient, errors

def call():
    try:
        client.embed_documents(["a"])
    except errors.Qwen3VLLMError as error:
        print(error, flush=True)

client = EmbeddingClient(base_url=sys.argv[1], timeout=0.5 if joined else 60, max_retries=0)
thread = threading.Thread(target=call, daemon=True)
thread.start()
input()
"""


@pytest.mark.parametrize(("joined", "words"), [("joined", "within 0.5 s"), ("left", "")])
def test_a_daemons_call_under_way_ends_in_time_or_with_the_process(
    embedding_server: SocketServer, joined: str, words: str
) -> None:
    embedding_server.fault = always(hang, EMBEDDINGS)
    command = [sys.executable, "-c", UNDER_WAY, embedding_server.base_url, joined]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert until(lambda: embedding_server.in_flight == 1)
        out, err = process.communicate("\n", timeout=60)

    assert words in out
    assert (process.returncode, err) == (0, "")


async def test_a_call_from_the_thread_that_sends_is_an_error(embedding_server: SocketServer) -> None:
    """The garbage collector may run any object's __del__ there."""
    client = client_of(embedding_server)

    async def collect() -> None:
        client.embed_documents(["a"])

    with pytest.raises(errors.Qwen3VLLMError, match="__del__"):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(collect(), background.get()))


# --- long runs -----------------------------------------------------------------------------------------


def test_hundreds_of_calls_leave_no_thread_and_no_connection_behind(embedding_server: SocketServer) -> None:
    client = client_of(embedding_server, batch_size=1, max_concurrency=4)
    client.embed_documents(["a", "b", "c", "d"])
    gc.collect()
    threads, descriptors = client_threads(), open_files()
    embedding_server.fault = mischief(random.Random(3), 0.05, [faults.reset, instead(503), faults.cut_off])

    async def calls() -> None:
        for n in range(100):
            await client.aembed_documents([f"{n}", f"{n}'"])

    for n in range(300):
        client.embed_documents([f"{n}"])
    asyncio.run(calls())
    gc.collect()

    assert client_threads() == threads
    assert until(lambda: len(embedding_server.connections) <= 4)
    # Each connection has two ends in this process, each end of the server's a file besides.
    assert until(lambda: open_files() <= descriptors + 8)
    assert embedding_server.connections_made < 80


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def client_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if "_serve" not in thread.name}


def test_many_clients_share_one_thread(embedding_server: SocketServer) -> None:
    client_of(embedding_server).embed_documents(["a"])
    threads = client_threads()

    for _ in range(30):
        client_of(embedding_server).embed_documents(["a"])

    assert client_threads() == threads
    assert embedding_server.connections_made < 10


def mischief(dice: random.Random, share: float, choices: list[Fault]) -> faults.Chooser:
    """Spoil this share of answers."""
    lock = threading.Lock()

    def choose(request: Request) -> Fault:
        with lock:
            return dice.choice(choices) if dice.random() < share else honest

    return choose


SOAK = [
    faults.reset,
    faults.cut_off,
    instead(500),
    instead(502, "<html>Bad Gateway</html>"),
    instead(503),
    instead(503, None, **{"Retry-After": "1"}),
    instead(429),
    instead(200, {"error": {"message": "EngineCore", "code": 500}}),
    instead(200, "<html>Please wait</html>"),
    faults.changed(lambda body: body[:-1]),
    faults.changed(lambda body: body[: len(body) // 2]),
    faults.changed(lambda body: b"\xff" * len(body)),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_a_soak_in_faults_every_vector_is_a_calm_runs(seed: int) -> None:
    texts = [f"text {n % 700} of {seed}" for n in range(1000)]
    calm = right(texts)
    vectors = np.full_like(calm, np.nan)
    rounds = 0
    with serve(FakeVLLM("embedding")) as server:
        client = client_of(server, batch_size=16, max_concurrency=8)
        client.embed_documents(["warm"])
        server.fault = mischief(random.Random(seed), 0.25, SOAK)
        left = list(range(len(texts)))
        while left and (rounds := rounds + 1) < 30:
            try:
                vectors[left] = client.embed_documents([texts[n] for n in left])
                left = []
            except errors.Qwen3VLLMError as error:
                if error.partial is not None:
                    vectors[left] = error.partial
                left = [left[n] for n in sorted(error.errors)] or left

    assert left == []
    np.testing.assert_allclose(vectors, calm, atol=1e-6)


def test_a_soak_of_reranking_ends_in_right_scores_or_errors_never_in_others() -> None:
    fake = FakeVLLM()
    documents = [f"document {n}" for n in range(100)]
    with serve(fake) as server:
        client = RerankClient(base_url=server.base_url, timeout=30)
        calm = client.score("q", documents)
        server.fault = mischief(random.Random(5), 0.2, SOAK)
        finished = 0
        for n in range(30):
            if n % 10 == 9:
                server.restart()
            try:
                scores = client.score("q", documents)
                finished += 1
            except errors.Qwen3VLLMError as error:
                if error.partial is None:
                    continue
                scores = error.partial
            known = ~np.isnan(scores)
            np.testing.assert_allclose(scores[known], calm[known], atol=1e-6)

    assert finished > 0
