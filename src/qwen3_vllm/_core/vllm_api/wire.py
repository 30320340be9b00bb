"""vLLM's HTTP API: request bodies, and their answers decoded and checked. Pure; field names live here alone.

What each vLLM release takes and answers is in docs/architecture.md, "vLLM versions".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from qwen3_vllm import errors

T = TypeVar("T")
Encoding = Literal["bytes_only", "base64"]
WireDtype = Literal["float32", "float16"]
TokenIds = list[int]

_NUMPY_DTYPE: dict[WireDtype, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
_LOOKS_LIKE_ERROR = re.compile(rb'\s*\{\s*"error"')
_UNPRINTED = 400  # characters of a server's own words that an error repeats

# How large a right response can be. Around its numbers and tokens stand ids, counts and field names.
_SLACK_BYTES = 2**20
_NUMBER_BYTES = 25  # "-1.2345678901234567e-08, "
_ITEM_BYTES = 4096
_TOKEN_ID_BYTES = 10
_TOKENS_A_CHARACTER = 12  # UTF-8 has 4 bytes at most, NFC triples some, and a token has a byte at least
_TOKEN_TEXT_BYTES = 4096
_WIDEST_VECTOR = 2**16  # numbers; until the width is known
_LIST_BYTES = 2**24  # of models


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; header names in lower case. `content` is lent: only until the answer is read.

    Attributes:
        mask: Hides what was sent in confidence; for every word of the server's that is repeated.
        check_id: Called with the answer's own id; raises if it answers another request.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes | memoryview
    mask: Callable[[str], str] = str
    check_id: Callable[[object], object] = id


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request and how to read its answer, into memory of its own.

    Attributes:
        path: Relative to the server's root.
        most_bytes: The most that a right answer can have; a longer one is not read to its end.
        texts: In this request, if who sends it will send parts of it where the server finds it too many.
    """

    path: str
    body: dict[str, Any] | None
    decode: Callable[[Answer], T]
    most_bytes: int = _LIST_BYTES
    texts: int = 1


# --- models, version, tokens ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A line of `/v1/models`; None where a proxy leaves something out.

    Attributes:
        max_model_len: In tokens.
        root: Folder or hub id of the checkpoint.
    """

    name: str
    max_model_len: int | None
    root: str | None = None


def models() -> Call[list[ServedModel]]:
    def decode(answer: Answer) -> list[ServedModel]:
        try:
            return [
                ServedModel(str(m["id"]), _count(m, "max_model_len"), m.get("root") and str(m["root"]))
                for m in _json(answer)["data"]
            ]
        except (KeyError, TypeError):
            raise _unexpected(answer, 'a list of models, {"data": [{"id": …}]}') from None

    return Call("/v1/models", None, decode)


def version() -> Call[str]:
    def decode(answer: Answer) -> str:
        try:
            return str(_json(answer)["version"])
        except (KeyError, TypeError):
            raise _unexpected(answer, '{"version": …}') from None

    return Call("/version", None, decode)


def tokenize(model: str, text: str, *, add_special_tokens: bool = True) -> Call[TokenIds]:
    """Token ids of `text`, by default with the tokens that the tokenizer adds of its own."""
    body = {"model": model, "prompt": text, "add_special_tokens": add_special_tokens}
    most = _SLACK_BYTES + len(text) * _TOKENS_A_CHARACTER * _TOKEN_ID_BYTES
    return Call("/tokenize", body, _tokens, most)


def _tokens(answer: Answer) -> TokenIds:
    try:
        return [int(token) for token in _json(answer)["tokens"]]
    except (KeyError, TypeError, ValueError):
        raise _unexpected(answer, '{"tokens": […]}') from None


def tokenize_pair(model: str, query: str, document: str, instruction: str) -> Call[TokenIds]:
    """Token ids of a pair in the server's chat template, whether or not /score passes it the instruction."""
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    body = {"model": model, "messages": messages, "chat_template_kwargs": {"instruction": instruction}}
    return Call("/tokenize", body, _tokens)


def detokenize(model: str, tokens: TokenIds) -> Call[str]:
    def decode(answer: Answer) -> str:
        try:
            return str(_json(answer)["prompt"])
        except (KeyError, TypeError):
            raise _unexpected(answer, '{"prompt": …}') from None

    most = _SLACK_BYTES + len(tokens) * _TOKEN_TEXT_BYTES
    return Call("/detokenize", {"model": model, "tokens": tokens}, decode, most)


# --- embeddings ----------------------------------------------------------------------------------------


def embeddings(
    model: str,
    inputs: Sequence[str | TokenIds],
    *,
    encoding: Encoding,
    dtype: WireDtype = "float32",
    dimensions: int | None = None,
    width: int | None = None,
    keep: int | None = None,
    truncate_to: int | None = None,
    out: NDArray[np.float32] | None = None,
) -> Call[NDArray[np.float32]]:
    """Embed `inputs`: one row each, in order, of length 1.

    Args:
        dimensions: Asked of the server; None where it does not cut vectors itself.
        width: Numbers a vector of the answer must have; None while that is not known.
        keep: Cut vectors to their first numbers here.
        truncate_to: Let the server cut inputs to so many tokens.
        out: Write the rows here; None makes an array. Holds anything if the answer is wrong.
    """
    body: dict[str, Any] = {"model": model, "input": list(inputs), "encoding_format": encoding}
    if encoding == "bytes_only" or dtype != "float32":  # fields that vLLM knows from 0.11.1
        body["endianness"] = "little"
        body["embed_dtype"] = dtype
    if dimensions is not None:
        body["dimensions"] = dimensions
    if truncate_to is not None:
        body["truncate_prompt_tokens"] = truncate_to
    count = len(inputs)

    def decode(answer: Answer) -> NDArray[np.float32]:
        kind = answer.headers.get("content-type", "")
        if answer.status == 200 and kind.startswith("application/octet-stream"):
            vectors = _raw_vectors(answer, count, _NUMPY_DTYPE[dtype])
        else:
            vectors = _json_vectors(answer, count, _NUMPY_DTYPE[dtype])
        if width is not None and vectors.shape[1] != width:
            raise _unexpected(answer, f"{count} vectors of {width} numbers", f"{vectors.shape[1]} each")
        vectors = vectors[:, :keep]
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        if not ((norms > 0) & np.isfinite(norms)).all():
            bad = int(np.flatnonzero(~((norms > 0) & np.isfinite(norms)))[0])
            raise _unexpected(answer, "finite vectors", f"NaN, infinity or only zeros in vector {bad}")
        unit: NDArray[np.float32] = np.divide(vectors, norms[:, None], out=out)
        return unit

    most = _SLACK_BYTES + count * (_ITEM_BYTES + (width or _WIDEST_VECTOR) * _NUMBER_BYTES)
    return Call("/v1/embeddings", body, decode, most)


@dataclass(frozen=True, slots=True)
class EmbeddingProbe:
    """What an answer with one vector tells of a server.

    Attributes:
        width: Numbers in the vector.
        in_pieces: The answer came without a length. vLLM, to 0.32 at least, sends binary answers so: one
            vector after another, each fetched by a thread.
    """

    width: int
    in_pieces: bool


def embedding_probe(
    model: str, *, encoding: Encoding, dtype: WireDtype, dimensions: int | None
) -> Call[EmbeddingProbe]:
    """Embed one letter, to see how the server answers."""
    call = embeddings(model, ["a"], encoding=encoding, dtype=dtype, dimensions=dimensions)

    def decode(answer: Answer) -> EmbeddingProbe:
        return EmbeddingProbe(call.decode(answer).shape[1], "content-length" not in answer.headers)

    return replace(call, decode=decode)  # type: ignore[arg-type, return-value]


def unchecked_embeddings(model: str, inputs: Sequence[str | TokenIds]) -> Call[NDArray[np.float32]]:
    """Embed `inputs`, rows as long as the server makes them: for whoever examines the server itself."""
    body = {"model": model, "input": list(inputs), "encoding_format": "base64"}
    return Call(
        "/v1/embeddings",
        body,
        lambda answer: _json_vectors(answer, len(inputs), _NUMPY_DTYPE["float32"]),
        _SLACK_BYTES + len(inputs) * _WIDEST_VECTOR * _NUMBER_BYTES,
    )


def _raw_vectors(answer: Answer, count: int, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    size = len(answer.content)
    if size == 0 or size % (count * dtype.itemsize):
        raise _unexpected(answer, f"{count} vectors of {dtype.name}", f"{size} bytes")
    vectors: NDArray[Any] = np.frombuffer(answer.content, dtype=dtype).reshape(count, -1)
    return vectors.astype(np.float32, copy=False)


def _json_vectors(answer: Answer, count: int, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    rows: list[Any] = [item.get("embedding") for item in _items(answer, count)]
    try:
        if all(isinstance(row, str) for row in rows):
            vectors = _base64_vectors(rows, dtype)
        else:
            vectors = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError):
        vectors = np.empty(0, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise _unexpected(answer, f"{count} vectors of one length")
    return vectors


def _base64_vectors(rows: Sequence[str], dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """pybase64 takes 2 µs for 1,024 numbers, binascii 14 to 23."""
    if len(set(map(len, rows))) != 1:
        raise ValueError("vectors of different lengths")
    content = b"".join([pybase64.b64decode(row, validate=True) for row in rows])
    vectors: NDArray[Any] = np.frombuffer(content, dtype=dtype).reshape(len(rows), -1)
    return vectors.astype(np.float32, copy=False)


# --- scores --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores in the order asked, float32 in [0, 1], and the tokens the server counted for all of them."""

    values: NDArray[np.float32]
    prompt_tokens: int | None


def score(
    model: str, text_1: str | Sequence[str], text_2: Sequence[str], *, instruction: str | None = None
) -> Call[Scores]:
    """Score pairs: one `text_1` with each of `text_2`, or pair by pair.

    `/v1/score`, not `/score`: vLLM's own key check covers /v1 only. `instruction` has an effect from vLLM
    0.22 with a chat template; older ones ignore it silently.
    """
    body: dict[str, Any] = {"model": model, "text_1": text_1, "text_2": list(text_2)}
    if instruction is not None:
        body["instruction"] = instruction

    def decode(answer: Answer) -> Scores:
        return _scores(answer, len(text_2), lambda item: item["score"])

    return Call("/v1/score", body, decode, _SLACK_BYTES + len(text_2) * _ITEM_BYTES)


def classify(model: str, prompts: Sequence[str | TokenIds]) -> Call[Scores]:
    """Score finished prompts, as text or (from vLLM 0.15) as token ids. No server templates these."""

    def probability(item: Mapping[str, Any]) -> Any:
        probabilities = item["probs"]
        if len(probabilities) != 1:
            raise ValueError("more classes than one")
        return probabilities[0]

    def decode(answer: Answer) -> Scores:
        return _scores(answer, len(prompts), probability)

    body = {"model": model, "input": list(prompts)}
    return Call("/classify", body, decode, _SLACK_BYTES + len(prompts) * _ITEM_BYTES)


def _scores(answer: Answer, count: int, read: Callable[[Mapping[str, Any]], Any]) -> Scores:
    try:
        values = np.asarray([read(item) for item in _items(answer, count)], dtype=np.float32)
    except (KeyError, TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.shape != (count,):
        raise _unexpected(answer, "one score a text")
    # NaN fails the comparison too. Rounding on the server may pass 1 by a little.
    if not (np.greater_equal(values, -1e-5) & np.less_equal(values, 1 + 1e-5)).all():
        raise _unexpected(answer, "scores from 0 to 1", f"scores from {values.min()} to {values.max()}")
    usage = _json(answer).get("usage")
    tokens = _count(usage, "prompt_tokens") or _count(usage, "total_tokens")
    return Scores(values.clip(0, 1), tokens)


# --- answers and errors --------------------------------------------------------------------------------


def _items(answer: Answer, count: int) -> list[Mapping[str, Any]]:
    """The answer's `data`, put into the order of its `index` fields."""
    body = _json(answer)
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise _unexpected(answer, '{"data": [{"index": …}, …]}')
    if len(data) != count:
        raise _unexpected(answer, f"{count} items", str(len(data)))
    ordered: list[Mapping[str, Any]] = [{}] * count
    seen = set()
    for position, item in enumerate(data):
        index = item.get("index", position)
        if not isinstance(index, int) or not 0 <= index < count or index in seen:
            raise _unexpected(answer, f"indexes 0 to {count - 1}, once each", f"index {index}")
        seen.add(index)
        ordered[index] = item
    return ordered


def _count(fields: Any, name: str) -> int | None:
    """A number that is good to have; None where a server, or a proxy, has none."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) else None


def _json(answer: Answer) -> Any:
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise _unexpected(answer, "JSON", _excerpt(answer)) from None
    if isinstance(body, dict) and "id" in body:
        answer.check_id(body["id"])
    return body


def _unexpected(answer: Answer, wanted: str, got: str | None = None) -> errors.InvalidAnswerError:
    got = _short(answer.mask(got)) if got is not None else _excerpt(answer)
    return errors.InvalidAnswerError(f"{answer.url} answered {got}, where this client needs {wanted}")


def _excerpt(answer: Answer) -> str:
    text = answer.mask(bytes(answer.content).decode("utf-8", "replace"))
    text = text[: 4 * _UNPRINTED]  # only now: half a secret would not be known for one
    if "<html" in text.lower() or "<!doctype" in text.lower():
        text = "an HTML page: " + re.sub(r"<[^>]*>", " ", text)
    return _short(" ".join(text.split())) or "nothing"


def _short(text: str) -> str:
    return (text[:_UNPRINTED] + "…") if len(text) > _UNPRINTED else text


def raise_for_error(answer: Answer) -> None:
    """Raise what an answer says went wrong, whatever its shape.

    vLLM's errors come as {"error": {"message", "type", "code"}}, as {"error": "Unauthorized"}, flat in
    0.10.0, as {"detail": …}, or empty; 0.15.1 sends them with HTTP status 200.
    """
    if answer.status < 400 and not _LOOKS_LIKE_ERROR.match(answer.content):
        return
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        body = None
    found = body.get("error") if isinstance(body, dict) else None
    if found is None and isinstance(body, dict) and body.get("object") == "error":
        found = body
    if answer.status < 400 and found is None:
        return
    status, kind, message = answer.status, "", ""
    if isinstance(found, dict):
        kind, message = str(found.get("type", "")), str(found.get("message", ""))
        code = found.get("code")
        if status < 400:
            status = code if isinstance(code, int) and code >= 400 else 500
    elif isinstance(found, str):
        message, status = found, status if status >= 400 else 500
    elif isinstance(body, dict) and "detail" in body:
        message = str(body["detail"])
    message = _short(answer.mask(message)) or _excerpt(answer)
    advice = _advice(status)
    raise _error_class(status, kind, message, body)(
        f"{answer.url} answered {status}: {message.rstrip(' .') if advice else message}{advice}",
        status=status,
        retry_after=_retry_after(answer.headers.get("retry-after")),
    )


def _error_class(status: int, kind: str, message: str, body: Any) -> type[errors.ServerError]:
    if status in (401, 403):
        return errors.AuthenticationError
    if status == 404 and (kind == "NotFoundError" or "does not exist" in message):
        return errors.ModelNotFoundError
    if status in (404, 405, 501) or (status == 400 and re.search(r"does not support .{0,40}API", message)):
        return errors.RouteNotFoundError
    if status in (400, 413, 422):
        return errors.BadRequestError
    if status in (429, 503):
        return errors.OverloadedError
    return errors.ServerError


def _advice(status: int) -> str:
    if status in (401, 403):
        return ". Pass the server's key as api_key, or set VLLM_API_KEY"
    return ""


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; None for an HTTP date, which our own back-off replaces."""
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None


def is_too_long(error: Exception) -> bool:
    """Whether the server refused an input for its length (the same words in every vLLM release)."""
    return isinstance(error, errors.BadRequestError) and "maximum context length" in str(error)


def pools_full_context(error: object) -> bool:
    """Whether the server refused an input for its length as vLLM does from 0.32.0 on (the same in 0.33)."""
    return isinstance(error, errors.ServerError) and "even without any output tokens" in str(error)


def refuses_dimensions(error: Exception) -> bool:
    """Whether the server refused `dimensions`, as it does unless started with is_matryoshka."""
    return isinstance(error, errors.BadRequestError) and "matryoshka" in str(error).lower()
