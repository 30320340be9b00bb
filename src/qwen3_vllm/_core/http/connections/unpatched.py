"""An event loop in a thread of the operating system, also in a process that gevent has patched.

There `threading.Thread` makes a greenlet. A loop in one would count as the running loop of every other
greenlet of that thread, so that `asyncio.run` fails everywhere.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def _original(module: str, name: str) -> Any:
    """What gevent may have replaced."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), name)
    return monkey.get_original(module, name)


def _threads_are_greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


def thread_id() -> int:
    """The thread of the operating system that this runs in."""
    number: int = _original("_thread", "get_ident")()
    return number


def poll() -> Any:
    """The system's `select.poll()`; None where the system has no such call, as on Windows."""
    make = _original("select", "poll") if hasattr(import_module("select"), "poll") else None
    return make() if make is not None else None


def start_loop(name: str) -> tuple[asyncio.AbstractEventLoop, int]:
    """Run a new event loop in a daemon thread of its own; gives the loop and the thread's id."""
    if not _threads_are_greenlets():
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name=name, daemon=True)
        thread.start()
        assert thread.ident is not None
        return loop, thread.ident
    made: list[tuple[asyncio.AbstractEventLoop, int]] = []
    ready = _original("_thread", "allocate_lock")()
    ready.acquire()

    def run() -> None:
        loop = _Loop(_original("selectors", "DefaultSelector")())
        made.append((loop, thread_id()))
        ready.release()
        loop.run_forever()

    _original("_thread", "start_new_thread")(run, ())
    ready.acquire()  # for as long as it takes to make a loop
    return made[0]


def run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work`, done on another thread's loop; what ends the wait cancels it.

    Under gevent other greenlets run meanwhile. A lock of gevent's would not do: a hub where only another
    thread can wake anybody gives up.
    """
    if not _threads_are_greenlets():
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: nothing goes on in the background
            raise
    gevent = import_module("gevent")
    hub = gevent.get_hub()
    waiter, done = gevent.hub.Waiter(hub), hub.loop.async_()
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        task = loop.create_task(work)
        tasks.append(task)
        task.add_done_callback(lambda _: done.send())

    done.start(waiter.switch, None)
    try:
        loop.call_soon_threadsafe(begin)
        waiter.get()
    except BaseException:
        loop.call_soon_threadsafe(lambda: tasks[0].cancel())
        raise
    finally:
        done.stop()
    return tasks[0].result()


class _Loop(asyncio.SelectorEventLoop):
    """A loop that uses nothing of gevent's: its executor's threads, and names looked up, would wait for a
    hub that does not run in this thread."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        result: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                value = func(*args)
            except BaseException as error:  # noqa: BLE001  as an executor, whatever it is
                self.call_soon_threadsafe(_fail, result, error)
            else:
                self.call_soon_threadsafe(_succeed, result, value)

        _original("_thread", "start_new_thread")(run, ())
        return result

    async def getaddrinfo(self, host: Any, port: Any, **kinds: Any) -> Any:
        look_up = _original("socket", "getaddrinfo")
        return await self.run_in_executor(None, lambda: look_up(host, port, **kinds))


def _succeed(result: asyncio.Future[T], value: T) -> None:
    if not result.done():
        result.set_result(value)


def _fail(result: asyncio.Future[T], error: BaseException) -> None:
    if not result.done():
        result.set_exception(error)
