"""Calls of vLLM's HTTP API and how their answers are read; those that list models and count tokens.

What each vLLM release takes and answers is in `_core/releases.py`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from qwen3_vllm import errors

T = TypeVar("T")
TokenIds = list[int]

# Routes that run the model, which take fields of future releases.
MODEL_ROUTES = frozenset({"/v1/embeddings", "/v1/score", "/v1/rerank", "/classify"})

_UNPRINTED = 400  # characters of a server's own words that an error repeats

# How large a right response can be. Around its numbers and tokens stand ids, counts and field names.
SLACK_BYTES = 2**20
ITEM_BYTES = 4096
_TOKEN_ID_BYTES = 10
_TOKENS_A_CHARACTER = 12  # UTF-8 has 4 bytes at most, NFC triples some, and a token has a byte at least
_TOKEN_TEXT_BYTES = 4096
_LIST_BYTES = 2**24  # of models


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response; header names in lower case. `content` is valid only until `decode` returns.

    Attributes:
        mask: Hides what was sent in confidence; for every word of the server's that is repeated.
        check_id: Called with the response's own id; raises if it answers another request.
        note_tokens: Called with the input tokens that the server counted, if it reports them.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes | memoryview
    mask: Callable[[str], str] = str
    check_id: Callable[[object], object] = id
    note_tokens: Callable[[int], object] = id


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request and how to read its response, into memory of its own.

    Attributes:
        path: Relative to the server's root.
        most_bytes: The most that a correct response can have; a longer one is not read to its end.
        texts: In this request, if who sends it will send parts of it where the server finds it too many.
        tentative: Sent to learn whether the server has this form; a refusal says that, and nothing of others.
        bulk: Part of much work that nobody waits for, so that a balancer can let queries pass.
    """

    path: str
    body: dict[str, Any] | None
    decode: Callable[[Answer], T]
    most_bytes: int = _LIST_BYTES
    texts: int = 1
    tentative: bool = False
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A line of `/v1/models`; None where a proxy leaves something out.

    Attributes:
        max_model_len: In tokens; of a LoRA adapter, its base model's.
        root: Folder or hub id of the checkpoint.
    """

    name: str
    max_model_len: int | None
    root: str | None = None


def models() -> Call[list[ServedModel]]:
    def decode(answer: Answer) -> list[ServedModel]:
        try:
            lines = json_of(answer)["data"]
            lengths = {m["id"]: count_in(m, "max_model_len") for m in lines}
            return [
                ServedModel(
                    str(m["id"]),
                    lengths[m["id"]] or lengths.get(m.get("parent")),
                    m.get("root") and str(m["root"]),
                )
                for m in lines
            ]
        except (KeyError, TypeError, AttributeError):
            raise unexpected(answer, 'a list of models, {"data": [{"id": …}]}') from None

    return Call("/v1/models", None, decode)


def health() -> Call[None]:
    return Call("/health", None, lambda answer: None)


def version() -> Call[str]:
    return Call("/version", None, lambda answer: str(_field(answer, "version")))


def tokenize(model: str, text: str, *, add_special_tokens: bool = True) -> Call[TokenIds]:
    """Token ids of `text`, by default with the tokens that the tokenizer adds of its own."""
    body = {"model": model, "prompt": text, "add_special_tokens": add_special_tokens}
    most = SLACK_BYTES + len(text) * _TOKENS_A_CHARACTER * _TOKEN_ID_BYTES
    return Call("/tokenize", body, _tokens, most)


def _tokens(answer: Answer) -> TokenIds:
    try:
        return [int(token) for token in _field(answer, "tokens")]
    except (TypeError, ValueError):
        raise unexpected(answer, '{"tokens": […]}') from None


def tokenize_pair(model: str, query: str, document: str, instruction: str) -> Call[TokenIds]:
    """Token ids of a pair in the server's chat template, whether or not /score passes it the instruction."""
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    body = {"model": model, "messages": messages, "chat_template_kwargs": {"instruction": instruction}}
    return Call("/tokenize", body, _tokens)


def detokenize(model: str, tokens: TokenIds) -> Call[str]:
    most = SLACK_BYTES + len(tokens) * _TOKEN_TEXT_BYTES
    body = {"model": model, "tokens": tokens}
    return Call("/detokenize", body, lambda answer: str(_field(answer, "prompt")), most)


def _field(answer: Answer, name: str) -> Any:
    try:
        return json_of(answer)[name]
    except (KeyError, TypeError):
        raise unexpected(answer, f'{{"{name}": …}}') from None


def items_of(answer: Answer, count: int, name: str = "data") -> list[Mapping[str, Any]]:
    """The response's list `name`, put into the order of its `index` fields."""
    body = json_of(answer)
    data = body.get(name) if isinstance(body, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise unexpected(answer, f'{{"{name}": [{{"index": …}}, …]}}')
    if len(data) != count:
        raise unexpected(answer, f"{count} items", str(len(data)))
    ordered: list[Mapping[str, Any]] = [{}] * count
    seen = set()
    for position, item in enumerate(data):
        index = item.get("index", position)
        if not isinstance(index, int) or not 0 <= index < count or index in seen:
            raise unexpected(answer, f"indexes 0 to {count - 1}, once each", f"index {index}")
        seen.add(index)
        ordered[index] = item
    return ordered


def count_in(fields: Any, name: str) -> int | None:
    """A number that is good to have; None where a server, or a proxy, has none."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) else None


def json_of(answer: Answer) -> Any:
    try:
        body = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise unexpected(answer, "JSON", excerpt(answer)) from None
    if isinstance(body, dict) and "id" in body:
        answer.check_id(body["id"])
    tokens = tokens_of(body)
    if tokens is not None:
        answer.note_tokens(tokens)
    return body


def tokens_of(body: Any) -> int | None:
    """Input tokens that the server counted for a request; None where it, or a proxy, does not report them."""
    if not isinstance(body, dict):
        return None
    meta = body.get("meta")  # of Cohere and LiteLLM
    places = [body.get("usage")]
    if isinstance(meta, dict):
        places += [meta.get("tokens"), meta.get("billed_units")]
    names = ("prompt_tokens", "input_tokens", "total_tokens")
    return next((count for place in places for name in names if (count := count_in(place, name))), None)


def unexpected(answer: Answer, wanted: str, got: str | None = None) -> errors.InvalidAnswerError:
    got = shortened(answer.mask(got)) if got is not None else excerpt(answer)
    return errors.InvalidAnswerError(f"{answer.url} sent {got}, where this client needs {wanted}")


def excerpt(answer: Answer) -> str:
    text = answer.mask(bytes(answer.content).decode("utf-8", "replace"))
    text = text[: 4 * _UNPRINTED]  # only now: half a secret would not be known for one
    if "<html" in text.lower() or "<!doctype" in text.lower():
        text = "an HTML page: " + re.sub(r"<[^>]*>", " ", text)
    return shortened(" ".join(text.split())) or "nothing"


def shortened(text: str) -> str:
    return (text[:_UNPRINTED] + "…") if len(text) > _UNPRINTED else text
