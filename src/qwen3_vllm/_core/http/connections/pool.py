"""Connections to servers, kept for the next request only while nothing was received that nobody asked for.

A server, or a proxy in front of it, may send a second response, or a 408 on a connection that it is about to
close. aiohttp alone would take that for the response to the next request: another text's vector.
"""

import functools
import select
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from qwen3_vllm._core.http.connections.unpatched import poll

_REQUEST_TIMEOUT = 408  # sent unasked on idle connections, by HAProxy for one: the connection is of no use


class _Protocol(ResponseHandler):
    """One connection, which remembers whether it can be trusted with another request."""

    idle = False
    _received: "select.poll | None" = None

    def data_received(self, data: bytes) -> None:
        if self.idle and data:  # empty when reading goes on after a pause
            self.close()
        else:
            super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        if data[0].code == _REQUEST_TIMEOUT:
            self.force_close()
        super().feed_data(data, size)

    def rest(self) -> None:
        self.idle = True

    def is_clean(self) -> bool:
        """Whether nothing came after the last response; for a connection that is about to be used again."""
        return not (self.should_close or self._holds_half_a_message() or self._is_readable())

    def _holds_half_a_message(self) -> bool:
        """Whether the beginning of a message came together with the last response.

        Ends the parser; the next request gets a new one.
        """
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001  aiohttp raises various ones, for a message that is not complete
            return True

    def _is_readable(self) -> bool:
        """Whether the system has received something that the event loop has not read yet, or the end."""
        if self._received is None:
            if self.transport is None or (received := poll()) is None:
                return False
            self._received = received
            self._received.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return bool(self._received.poll(0))


class Response(aiohttp.ClientResponse):
    """A response whose connection can be given up even when it has been read to its end."""

    def distrust(self) -> None:
        """Close the connection: what came on it belongs to something else, and the next may, too."""
        if self._protocol is not None:
            self._protocol.close()


class Connector(aiohttp.TCPConnector):
    """A pool of clean connections.

    Counts those it makes, by the server's address; aiohttp's traces cost 40 µs per request.
    """

    def __init__(self, made: Counter[URL], *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        make: Callable[..., ResponseHandler] = _Protocol
        self._factory = functools.partial(make, loop=self._loop)
        self._made = made

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert isinstance(protocol, _Protocol)
            if protocol.idle and not protocol.is_clean():
                connection.close()
                continue
            if not protocol.idle:
                self._made[req.url.origin()] += 1
                if protocol.should_close:
                    connection.close()
                    raise aiohttp.ServerDisconnectedError("it spoke before it was asked")
            protocol.idle = False
            connection.add_callback(protocol.rest)
            return connection
