"""The one place that does HTTP.

Clients describe what to do as flows: generators that yield rounds of calls and are sent the results. A flow
is pure, so sync and async share every line of it. All flows of a process run on one event loop in a
background thread, over one pool of connections. So a client is safe in threads, in any number of event loops
and after a fork, and owns nothing that must be closed.

aiohttp rather than the openai SDK: for 128 documents in four requests to a canned server it takes 1.7 ms of
CPU where the SDK's async client takes 4.7 ms and its sync client in threads 6.9 ms, and its time limit holds
for the whole answer, not for each read.
"""

import asyncio
import atexit
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, cast

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from qwen3_vllm import errors
from qwen3_vllm._core.http.buffers import Buffer, Buffers
from qwen3_vllm._core.http.disconnections import disconnection
from qwen3_vllm._core.http.masking import Mask
from qwen3_vllm._core.http.outages import Outage
from qwen3_vllm._core.http.pace import Pace
from qwen3_vllm._core.http.pool import Connector, Response
from qwen3_vllm._core.http.proxies import proxy_for
from qwen3_vllm._core.http.request_ids import HEADER as REQUEST_ID
from qwen3_vllm._core.http.request_ids import RequestIds
from qwen3_vllm._core.http.slots import ConcurrencyLimit, Place
from qwen3_vllm._core.settings import ServerSettings
from qwen3_vllm._core.vllm_api.calls import Answer, Call
from qwen3_vllm._core.vllm_api.error_bodies import raise_for_error

T = TypeVar("T")
# A flow yields calls, and is sent their results, errors among them, in the same order; or it yields a
# lock, and goes on when it holds it.
Flow: TypeAlias = Generator[Sequence[Call[Any]] | asyncio.Lock, list[Any], T]

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_SHORTEST_SECRET = 8  # characters; masking shorter values of headers would garble messages
_MOST_REFUSAL_BYTES = 2**20  # read of an error answer
_SOON = 0.25  # of the time limit; while answers take longer, no more requests are put in flight
_HUNG = 2.5  # time limits without any answer, after which what has waited for its turn is not sent
_MOST_TRIES = 30  # of a request that a full server refuses while it answers others
_IN_ANOTHER_PLACE = -1.0
_NONE_YET = object()
_LONGEST_WAIT = 60.0  # seconds, whatever Retry-After says
# vLLM closes a connection after 5 s without a request; using one at that moment fails.
_KEEP_ALIVE_SECONDS = 3.0
# An answer of 128 vectors is 512 KiB; with the default buffer of 64 KiB reading one costs 30 % more CPU.
_READ_BUFFER_BYTES = 2**18
_MOST_BUFFERED_BYTES = 2**26  # a server may announce anything


def send(*calls: Call[T]) -> Flow[list[T | errors.Qwen3VLLMError]]:
    """Send calls, as many at once as the settings allow; a call that failed for good gives its error."""
    results = yield calls
    return cast(list[T | errors.Qwen3VLLMError], results)


def send_one(call: Call[T]) -> Flow[T]:
    """Send one call and raise its error."""
    (result,) = yield from send(call)
    if isinstance(result, errors.Qwen3VLLMError):
        raise result
    return result


class Transport:
    """Runs flows against one server."""

    def __init__(self, settings: ServerSettings, *, start_command: str) -> None:
        """`start_command` is what an error advises when nothing listens at the address."""
        self._settings = settings
        self._start_command = start_command
        self.root = settings.base_url.removesuffix("/v1")
        self._origin = URL(self.root).origin()
        self._timeout = aiohttp.ClientTimeout(
            total=settings.timeout, connect=None, sock_connect=min(settings.timeout, _CONNECT_SECONDS)
        )
        self._load = OfLoop(lambda: _Load(settings, self.root))
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        own_headers = settings.default_headers or {}
        self._headers = CIMultiDict({"Content-Type": "application/json", "Accept-Encoding": "identity"})
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._headers.update(own_headers)
        self._ids = RequestIds(own_headers)
        self._proxy = proxy_for(self.root)
        self._tunnel_headers: dict[str, str] | None = None
        if self._proxy and self.root.startswith("https:"):
            self._tunnel_headers = self._proxy.headers  # the proxy sees nothing of the request itself
        elif self._proxy:
            self._headers.update(self._proxy.headers)
        self._mask = Mask([key, *_secrets(own_headers), *(self._proxy.secrets if self._proxy else ())])

    @property
    def connections_made(self) -> int:
        """Connections made to this server so far; while none is added, the process there is the same."""
        return _loop.connections_made[self._origin]

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end from sync code."""
        loop = _loop.get()
        future = asyncio.run_coroutine_threadsafe(self._drive(flow), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: nothing goes on in the background
            raise

    async def arun(self, flow: Flow[T]) -> T:
        """Run a flow to its end; cancelling ends its requests."""
        loop = _loop.get()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._drive(flow), loop))

    async def _drive(self, flow: Flow[T]) -> T:
        seconds = self._settings.total_timeout
        progress = _Progress(None if seconds is None else _now() + seconds)
        try:
            step = flow.send(cast(list[Any], None))
            while True:
                if not isinstance(step, asyncio.Lock):
                    step = flow.send(await self._round(step, progress))
                elif await progress.in_time(step.acquire()):
                    step = flow.send([])
                else:
                    step = flow.throw(self._too_late())
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            flow.close()
            self._load.get().outage.tell()

    async def _round(self, calls: Sequence[Call[Any]], progress: "_Progress") -> list[Any]:
        results: list[Any] = [_NONE_YET] * len(calls)
        progress.fatal = progress.hung
        if not await progress.in_time(self._answer(calls, results, progress)):
            late = self._too_late()
            results = [late if result is _NONE_YET else result for result in results]
        return results

    async def _answer(self, calls: Sequence[Call[Any]], results: list[Any], progress: "_Progress") -> None:
        """Fill in the results, each as it comes: the time may not be enough for all."""
        limit = self._load.get().limit
        waiting = iter(enumerate(calls))

        async def work() -> None:
            for index, call in waiting:
                at_once = limit.allowed
                results[index] = result = await self._send(call, progress)
                progress.note(call.path, result, at_once)

        if len(calls) == 1:
            await work()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._settings.max_concurrency, len(calls))):
                group.create_task(work())

    async def _send(self, call: Call[T], progress: "_Progress") -> T | errors.Qwen3VLLMError:
        load = self._load.get()
        began = _now()
        tries = _Tries(self._settings.max_retries)
        while True:
            async with load.limit.place() as place:
                delay = 0.0
                while not delay:  # what is sent again at once keeps its place
                    await load.pace.wait()
                    fatal = progress.fatal or progress.missing.get(call.path)
                    if fatal is not None:
                        return fatal
                    silent = load.limit.hung_since(began)
                    if not tries.made and silent > _HUNG * self._settings.timeout:
                        return errors.RequestTimeoutError(
                            f"{self.root} answered nothing for {silent:.1f} s: no more is sent to it."
                        )
                    place = load.limit.renewed()
                    try:
                        with _loop.buffers.taken() as buffer:
                            result = await self._exchange(call, buffer)
                        load.answered(place, call)
                        return result
                    except errors.Qwen3VLLMError as error:
                        error.args = tuple(full_stop(self._mask(words)) for words in error.args)
                        again = await load.failed(place, call, error, tries)
                        if again is None:
                            return error
                        delay = again
            if delay > 0:
                await asyncio.sleep(delay)

    def _too_late(self) -> errors.RequestTimeoutError:
        return errors.RequestTimeoutError(
            f"{self.root} did not answer the whole call within total_timeout, "
            f"{self._settings.total_timeout:g} s.",
            "total_timeout",
        )

    async def _exchange(self, call: Call[T], buffer: Buffer) -> T:
        url = self.root + call.path
        body = None if call.body is None else orjson.dumps(call.body)
        headers = self._headers
        request_id = ""
        if self._ids.checks:
            request_id = self._ids.fresh()
            headers = headers.copy()
            headers[REQUEST_ID] = request_id
        try:
            async with _loop.session().request(
                "GET" if body is None else "POST",
                url,
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                proxy=self._proxy.address if self._proxy else None,
                proxy_headers=self._tunnel_headers,
            ) as response:
                content = await _read(response, buffer, call.most_bytes)
        except (aiohttp.ClientError, OSError) as error:
            problem: errors.Qwen3VLLMError | None = disconnection(
                error, url, timeout=self._timeout, start_command=self._start_command
            )
        else:
            problem = None
        if problem is not None:
            raise problem  # here, where it has no context
        if response.status >= 300:
            # Before anything reads it, for half of a key would not be known for one.
            content = self._mask(bytes(content).decode("utf-8", "replace")).encode()
        if 300 <= response.status < 400:
            raise errors.ServerError(
                f"{url} redirects to {response.headers.get('location', 'nowhere')}: use that as base_url",
                status=response.status,
            )
        answer = Answer(
            url,
            response.status,
            {name.lower(): value for name, value in response.headers.items()},
            content,
            self._mask,
            lambda received: self._ids.check(url, request_id, received),
        )
        try:
            raise_for_error(answer)
            return call.decode(answer)
        except errors.Qwen3VLLMError as error:
            error.__context__ = None  # a parser's error holds the answer, and a key that this repeats
            if isinstance(error, errors.InvalidAnswerError):
                cast(Response, response).distrust()
            raise


@dataclass(slots=True)
class _Progress:
    """One flow's state: when it must end, and whether the server has answered it at all lately.

    Attributes:
        in_vain: Calls in a row that a sick server failed.
        hung: What every further call of the flow would end in.
        fatal: What every further call of this round would end in.
        missing: What every further call to these routes would end in.
    """

    deadline: float | None
    in_vain: int = 0
    hung: errors.RequestTimeoutError | None = None
    fatal: errors.Qwen3VLLMError | None = None
    missing: dict[str, errors.RouteNotFoundError] = field(default_factory=dict)

    async def in_time(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do something, or as much of it as the time is enough for."""
        if self.deadline is None:
            await work
            return True
        if _now() >= self.deadline:
            work.close()
            return False
        try:
            async with asyncio.timeout_at(self.deadline) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    def note(self, path: str, result: object, at_once: int) -> None:
        """Note what a call ended in, which was one of `at_once` in flight."""
        self.in_vain = self.in_vain + 1 if _may_stop_all(result) else 0
        if isinstance(result, errors.RouteNotFoundError):
            self.missing[path] = result
        if _stops_all(result) or self.in_vain > at_once:
            self.fatal = cast(errors.Qwen3VLLMError, result)
            if isinstance(result, errors.RequestTimeoutError):
                self.hung = result


class _Load:
    """What a server can take, as its answers tell."""

    def __init__(self, settings: ServerSettings, root: str) -> None:
        self.limit = ConcurrencyLimit(settings.max_concurrency, soon=settings.timeout * _SOON)
        self.pace = Pace()
        self.outage = Outage(root)

    def answered(self, place: Place, call: Call[Any]) -> None:
        self.limit.answered(place)
        self.pace.answered(call.texts)
        self.outage.over()

    async def failed(
        self, place: Place, call: Call[Any], error: errors.Qwen3VLLMError, tries: "_Tries"
    ) -> float | None:
        """Note a failure; returns seconds until the next attempt in another place, 0 in this one, or None.

        A negative number leaves the place, too: the pause of all requests is the wait.
        """
        again = retry_delay(error, tries.failed) if tries.failed < tries.most else None
        tries.made += 1
        tries.failed += 1
        if isinstance(error, errors.RequestTimeoutError):
            hangs = await self.limit.timed_out(place, for_good=again is None)
            if again is not None and not hangs:
                again = _IN_ANOTHER_PLACE
        elif not isinstance(error, errors.ServerUnreachableError):
            self.limit.heard()
        if isinstance(error, errors.OverloadedError):
            await self.limit.overloaded(place)
            again = self._refused(place, call, error, again, tries)
        if again is not None:
            self.outage.failed(error, max(again, 0.0))
        return again

    def _refused(
        self,
        place: Place,
        call: Call[Any],
        error: errors.OverloadedError,
        again: float | None,
        tries: "_Tries",
    ) -> float | None:
        if error.retry_after is not None:
            self.pace.pause(retry_delay(error, 0) or 0.0)
            return _IN_ANOTHER_PLACE if again == 0 else again
        if self.pace.counts(place.taken_at):
            self.pace.pause(retry_delay(error, self.pace.refusals - 1) or 0.0)
        if error.status == 503 and call.texts > max(1, self.pace.taken):
            return None  # too many at once, perhaps
        if tries.most and self.pace.refusals == 1 and tries.made < _MOST_TRIES:
            tries.failed = max(0, tries.failed - 1)  # it answered others: this one will have its turn
            return retry_delay(error, tries.failed)
        return again if self.pace.refusals <= tries.most else None


@dataclass(slots=True)
class _Tries:
    """How often one request may fail, was sent, and failed while the server did not answer others instead."""

    most: int
    made: int = 0
    failed: int = 0


def full_stop(words: str) -> str:
    """End a message in one full stop, whatever the server's words in it end in."""
    words = words.rstrip()
    return words if words.endswith(("!", "?", "…")) else words.rstrip(".") + "."


def _secrets(headers: Mapping[str, str]) -> Iterator[str]:
    """Values of headers that are long enough to be secret, with and without a word like Bearer."""
    for value in headers.values():
        for part in (value, value.rpartition(" ")[2]):
            if len(part) >= _SHORTEST_SECRET:
                yield part


async def _read(response: aiohttp.ClientResponse, buffer: Buffer, most: int) -> bytes | memoryview:
    """Read the body, into the buffer where its length is told.

    Raises:
        InvalidAnswerError: It has more than `most` bytes, or is compressed. A body that comes with an error
            status is cut, or replaced by words.
    """
    refused = response.status >= 300
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("identity", ""):
        if refused:
            return f"a body in the encoding {encoding}, which was not asked for".encode()
        raise errors.InvalidAnswerError(
            f"{response.url} answered in the encoding {encoding}, which was not asked for: switch off "
            "compression in the proxy in front of the server",
            "encoding",
        )
    length = response.content_length
    if length is None or refused or _MOST_BUFFERED_BYTES < length <= most:
        return await _read_pieces(response, _MOST_REFUSAL_BYTES if refused else most, cut=refused)
    if length > most:
        raise _too_large(response, most)
    content = buffer.of(length)
    at = 0
    async for chunk in response.content.iter_any():
        content[at : at + len(chunk)] = chunk
        at += len(chunk)
    return content[:at]  # a status may come without the body it announces; behind it lie older answers


async def _read_pieces(response: aiohttp.ClientResponse, most: int, *, cut: bool) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        pieces.append(chunk)
        size += len(chunk)
        if size > most:
            if cut:
                break
            raise _too_large(response, most)
    return b"".join(pieces)


def _too_large(response: aiohttp.ClientResponse, most: int) -> errors.InvalidAnswerError:
    return errors.InvalidAnswerError(
        f"{response.url} answered more than {most} bytes, the most that this request can need", "size"
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


def retry_delay(error: errors.Qwen3VLLMError, attempt: int) -> float | None:
    """Seconds to wait before sending again after the failure number `attempt` (from 0); None: do not."""
    match error:
        case errors.ServerUnreachableError(cause="tls" | "proxy") | errors.RouteNotFoundError():
            return None
        case errors.InvalidAnswerError(cause="size" | "other request"):
            return 0.0 if attempt == 0 else None  # a connection out of step; the next one is another
        case errors.RequestTimeoutError():
            # Once: the server may have been restarting. More would multiply the user's time limit.
            return 0.0 if attempt == 0 else None
        case errors.ServerUnreachableError(cause="lost") if attempt == 0:
            return 0.0  # most often an idle connection that the server was closing
        case errors.ServerError(status=408):
            return 0.0 if attempt == 0 else None  # likewise: the server waited for a request on it
        case errors.ServerError(retry_after=float(seconds)) if error.status in (429, 500, 502, 503, 504):
            return min(seconds, _LONGEST_WAIT)
        case errors.ServerError() if error.status != 429 and error.status < 500:
            return None
        case errors.ServerUnreachableError() | errors.ServerError():
            return min(8.0, 0.5 * 2.0**attempt) * random.uniform(0.5, 1.0)
        case _:
            return None


def _may_stop_all(result: object) -> bool:
    """Whether the server seems sick, rather than one call wrong."""
    return isinstance(result, errors.RequestTimeoutError | errors.OverloadedError) or (
        isinstance(result, errors.ServerError) and result.status >= 500
    )


def _stops_all(result: object) -> bool:
    """Whether every further call to this server would fail the same way."""
    return isinstance(
        result,
        errors.ServerUnreachableError | errors.AuthenticationError | errors.ModelNotFoundError,
    )


class OfLoop(Generic[T]):
    """Something of asyncio's, made anew on another event loop: a forked child's, which shares no waiters."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[asyncio.AbstractEventLoop, T] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "OfLoop[T]":
        return OfLoop(self._make)

    def get(self) -> T:
        """To be called on the loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            self._made = loop, self._make()
        return self._made[1]


class _BackgroundLoop:
    """This process's event loop for HTTP, in a daemon thread, made when first used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
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
                self._running = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._running.run_forever, name="qwen3-vllm-http", daemon=True
                )
                self._thread.start()
            elif threading.current_thread() is self._thread:
                raise errors.Qwen3VLLMError(
                    "A call from within the thread that sends the requests cannot be answered: do not call "
                    "from __del__, which the garbage collector runs in any thread"
                )
        return self._running

    def session(self) -> aiohttp.ClientSession:
        """The shared pool of connections; to be called on the loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=Connector(self.connections_made, limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
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
        """In a forked child: start anew. The parent's loop is kept, for closing it would unregister the
        parent's sockets, whose poll set the child shares."""
        self._left_to_parent.append((self._running, self._session))
        self._lock, self._running, self._session = threading.Lock(), None, None
        self._thread = None


def _wait_briefly(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        asyncio.run_coroutine_threadsafe(work, loop).result(timeout=1)
    except TimeoutError:
        logger.debug("connections were still open at exit")


_loop = _BackgroundLoop()
atexit.register(_loop.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loop.forget)
