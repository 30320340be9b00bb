"""Sync calls in a process that gevent has patched, as celery's and gunicorn's gevent workers are."""

import subprocess
import sys
import threading

import pytest

from tests.fake_vllm import FakeVLLM
from tests.faults import Reply, Request, serve

_PATCH = "from gevent import monkey; monkey.patch_all()\n"
_IMPORT = "from qwen3_vllm import EmbeddingClient\n"
_BODY = """
import asyncio, os, sys, gevent

client = EmbeddingClient(base_url=sys.argv[1])
jobs = [gevent.spawn(client.embed_documents, [text]) for text in ("first", "second")]
gevent.joinall(jobs, raise_error=True)
print([job.value.shape for job in jobs])

stuck = gevent.spawn(client.embed_documents, ["never"])
try:
    with gevent.Timeout(0.1):
        client.embed_documents(["never"])
except gevent.Timeout:
    stuck.kill()
    print("given up")

async def call():
    return (await client.aembed_documents(["third"])).shape

print(asyncio.run(call()))
child = os.fork()
if not child:
    print(client.embed_documents(["fourth"]).shape, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


class Together(FakeVLLM):
    """Answers "first" and "second" when it has both, and "never" never."""

    both = threading.Barrier(2)

    def __call__(self, request: Request) -> Reply | None:
        if request.path == "/v1/embeddings":
            texts = request.json["input"]
            if texts == ["never"]:
                return None
            if texts in (["first"], ["second"]):
                self.both.wait(timeout=60)
        return super().__call__(request)


@pytest.mark.parametrize(
    "start", [_PATCH + _IMPORT, _IMPORT + _PATCH], ids=["patched first", "imported first"]
)
def test_greenlets_call_together_and_asyncio_works_afterwards(start: str) -> None:
    with serve(Together("embedding")) as server:
        url = server.base_url.replace("127.0.0.1", "localhost")  # whose name is looked up
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", start + _BODY, url],
            capture_output=True,
            text=True,
            timeout=100,
        )

    assert ended.stdout.splitlines() == ["[(1, 16), (1, 16)]", "given up", "(1, 16)", "(1, 16)"], ended.stderr
