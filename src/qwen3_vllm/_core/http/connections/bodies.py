"""The body of a response, read to its end within what it may be."""

import aiohttp

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.buffers import Buffer

_MOST_REFUSAL_BYTES = 2**20  # read of an error response
_MOST_BUFFERED_BYTES = 2**26  # a server may announce anything


async def read_body(response: aiohttp.ClientResponse, buffer: Buffer, most: int) -> bytes | memoryview:
    """Read a body, into the buffer where the server sends its length.

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
            f"{response.url} responded in the encoding {encoding}, which was not asked for: switch off "
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
    return content[:at]  # a status may come without the body it announces; behind it lie older responses


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
        f"{response.url} sent more than {most} bytes, more than this request can need", "size"
    )
