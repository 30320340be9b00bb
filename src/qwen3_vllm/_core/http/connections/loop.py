"""The event loop that all requests of a process run on, in a thread of its own, with its connections.

So a client is safe in threads, in any number of event loops and after a fork, and owns nothing that must be
closed.
"""

import asyncio
import atexit
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import aiohttp
from yarl import URL

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.buffers import Buffers
from qwen3_vllm._core.http.connections.pool import Connector, Response
from qwen3_vllm._core.http.connections.unpatched import start_loop, thread_id

T = TypeVar("T")

logger = logging.getLogger(__name__)

# vLLM closes a connection after 5 s without a request; using one at that moment fails.
KEEP_ALIVE_SECONDS = 3.0
# A response of 128 vectors is 512 KiB; the default buffer of 64 KiB costs 30 % more CPU for reading one.
_READ_BUFFER_BYTES = 2**18


def now() -> float:
    """The time of the running loop, in seconds."""
    return asyncio.get_running_loop().time()


class PerLoop(Generic[T]):
    """Something of asyncio's, made again on another event loop: a forked child's, which shares no waiters."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[asyncio.AbstractEventLoop, T] | None = None

    def get(self) -> T:
        """To be called on the loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            self._made = loop, self._make()
        return self._made[1]


class BackgroundLoop:
    """This process's event loop for HTTP, in a daemon thread, made when first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._ending = False
        self._session: aiohttp.ClientSession | None = None
        self._left_to_parent: list[object] = []
        self.connections_made: Counter[URL] = Counter()
        self.buffers = Buffers()

    def get(self) -> asyncio.AbstractEventLoop:
        """For a call from any thread.

        Raises:
            Qwen3VLLMError: A call from here would wait for ever: the interpreter is ending, which stops this
                thread, or this is the thread, where the garbage collector ran a `__del__`.
        """
        with self._lock:
            if self._ending:
                raise errors.Qwen3VLLMError(
                    "The interpreter is ending, and sends no more requests: call before the main thread ends"
                )
            if self._running is None:
                self._running, self._thread = start_loop("qwen3-vllm-http")
            elif thread_id() == self._thread:
                raise errors.Qwen3VLLMError(
                    "A call from within the thread that sends the requests cannot be answered: do not call "
                    "from __del__, which the garbage collector runs in any thread"
                )
        return self._running

    def session(self) -> aiohttp.ClientSession:
        """The shared pool of connections; to be called on the loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=Connector(self.connections_made, limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BUFFER_BYTES,
                response_class=Response,
                auto_decompress=False,
            )
        return self._session

    def close(self) -> None:
        """At exit: take no more calls; those under way, of daemon threads, go on while anybody waits."""
        with self._lock:
            self._ending = True
            loop, session = self._running, self._session
        if loop is None:
            return

        async def end() -> None:
            if session is not None and len(asyncio.all_tasks()) == 1:
                await session.close()

        _wait_briefly(end(), loop)

    def forget(self) -> None:
        """In a forked child: start again. The parent's loop is kept, for closing it would unregister the
        parent's sockets, whose poll set the child shares."""
        self._left_to_parent.append((self._running, self._session))
        self._lock, self._running, self._session = threading.Lock(), None, None
        self._thread = None


def _wait_briefly(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        asyncio.run_coroutine_threadsafe(work, loop).result(timeout=1)
    except TimeoutError:
        logger.debug("connections were still open at exit")


background = BackgroundLoop()
atexit.register(background.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=background.forget)
