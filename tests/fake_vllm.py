"""vLLM's HTTP API without a model, as each release answers it.

Scores and vectors are a hash of the token ids that reach the "model", so one byte more or less anywhere in a
prompt gives another number. A token is one byte, or one control token.
"""

import base64
import hashlib
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal

import jinja2
import numpy as np
from packaging.version import Version

from qwen3_vllm._core.prompts import CONTROL_TOKENS
from qwen3_vllm._core.releases import (
    BYTES_ONLY,
    CLASSIFY_TOKENS,
    EMBED_DTYPE,
    EMPTY_TEXTS,
    FULL_CONTEXT,
    NESTED_ERRORS,
    NO_SUCH_ROUTE,
    SCORE_INSTRUCTION,
    SCORE_TEMPLATE,
)
from tests.faults import Reply, Request

# The releases that tests are parametrised over: those that answer, or are started, unlike the one before.
RELEASES = (
    *("0.10.0", "0.10.1", "0.11.0", "0.12.0", "0.13.0", "0.14.0", "0.15.1"),
    *("0.19.1", "0.22.0", "0.29.0", "0.31.0", "0.32.0", "0.33.0"),
)
LONGEST_PROMPT = Version("0.18.0")  # says "your prompt contains" of an input that is too long
ERRORS_AS_SUCCESS = Version("0.15.1")  # sends errors with status 200, this release alone
END_TOKEN = "<|endoftext|>"
_FIRST_CONTROL_ID = 151_643
_SPLIT = re.compile("(" + "|".join(map(re.escape, CONTROL_TOKENS)) + ")")

RIGHT_TEMPLATE = files("qwen3_vllm").joinpath("templates/qwen3_reranker.jinja").read_text("utf-8")
# vLLM's own example: Jinja strips its last newline, so the prompt ends with one instead of two.
STOCK_TEMPLATE = RIGHT_TEMPLATE.removesuffix("\n")
# Right for Qwen's own instruction, whatever the request says.
DEAF_TEMPLATE = RIGHT_TEMPLATE.replace("instruction |", "nothing |")

Kind = Literal["reranker", "embedding", "chat", "cross-encoder", "constant"]


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass
class FakeVLLM:
    """One server. `kind` "constant" is a reranker that was started without its yes/no head."""

    kind: Kind = "reranker"
    version: str = "0.32.0"
    template: str | None = None
    model: str = "Qwen3"
    seed: str = ""
    context: int = 2048
    dimensions: int = 16
    matryoshka: bool = False
    api_key: str | None = None
    missing: tuple[str, ...] = ()
    """Routes that a proxy in front does not pass on."""
    counts: bool = True
    """Whether responses keep their `usage`: some proxies drop it."""
    gateway_version: str | None = None
    """What a gateway in front says at /version, of itself."""
    guards_all: bool = False
    """Whether every route requires the key, as `qwen3-vllm serve` has it."""

    def __call__(self, request: Request) -> Reply | None:
        """Answer a request; None where this release would never answer."""
        path = request.path
        if self.guards_all and self._key_of(request) != self.api_key:
            return Reply.of_json({"error": {"message": "A valid API key is needed"}}, 401)
        if self.api_key and path.startswith("/v1") and self._key_of(request) != self.api_key:
            return Reply.of_json({"error": "Unauthorized"}, 401)
        if path in self.missing:
            return Reply.of_json({"detail": "Not Found"}, 404)
        if path == "/v1/models":
            return Reply.of_json({"data": [{"id": self.model, "max_model_len": self.context}]})
        if path == "/version":
            return Reply.of_json({"version": self.gateway_version or self.version})
        if path == "/metrics":
            return Reply(200, b"# HELP", {"Content-Type": "text/plain"})
        if path not in self._routes:
            return self._not_served(path)
        try:
            body = request.json
            if not body:
                raise Refused(400, "Field required", "Bad Request")
            if body["model"] != self.model:
                raise Refused(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
            return _with_id(self._routes[path](body), request.headers.get("x-request-id"))
        except Refused as refused:
            return self._error(refused)

    @cached_property
    def release(self) -> Version:
        return Version(self.version)

    @property
    def _routes(self) -> dict[str, Any]:
        routes: dict[str, Any] = {"/tokenize": self._tokenize, "/detokenize": self._detokenize}
        if self.kind == "embedding":
            routes |= {"/v1/embeddings": self._embeddings, "/v1/score": self._cosines}
        elif self.kind != "chat":
            routes |= {"/v1/score": self._score, "/classify": self._classify}
        return routes

    # --- the model -------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Token ids, without any that the tokenizer would add."""
        if self.kind == "cross-encoder":  # another family's tokenizer, to which these are plain words
            return list(text.encode())
        ids: list[int] = []
        for part in _SPLIT.split(text):
            control = part in CONTROL_TOKENS
            ids += [_FIRST_CONTROL_ID + CONTROL_TOKENS.index(part)] if control else part.encode()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        parts = [bytes([i]) if i < 256 else CONTROL_TOKENS[i - _FIRST_CONTROL_ID].encode() for i in ids]
        return b"".join(parts).decode("utf-8", "replace")

    def probability(self, prompt: str | Sequence[int]) -> float:
        """P(yes) of a finished prompt."""
        if self.kind == "constant":
            return 0.5
        return 0.02 + 0.96 * self._digest(prompt)[0] / 2**32

    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        """The embedding of an input, to which the tokenizer has added its end token."""
        numbers = np.array([n - 2**31 for n in self._digest(prompt, self.dimensions)], np.float64)
        numbers = numbers[:dimensions]
        return (numbers / np.linalg.norm(numbers)).astype(np.float32)

    def _digest(self, prompt: str | Sequence[int], count: int = 1) -> list[int]:
        ids = self.encode(prompt) if isinstance(prompt, str) else prompt
        raw = hashlib.shake_256(self.seed.encode() + array("I", ids).tobytes()).digest(4 * count)
        return [int.from_bytes(raw[4 * i : 4 * i + 4]) for i in range(count)]

    # --- routes ----------------------------------------------------------------------------------------

    def _tokenize(self, body: dict[str, Any]) -> Reply:
        if "messages" in body:
            if self.template is None:
                raise Refused(400, "As of transformers v4.44, default chat template is no longer allowed")
            variables = body.get("chat_template_kwargs", {})
            ids = self.encode(render(self.template, messages=body["messages"], **variables))
        else:
            ids = self.encode(body["prompt"])
        if self.kind == "embedding" and body.get("add_special_tokens", True):
            ids += self.encode(END_TOKEN)
        return Reply.of_json({"count": len(ids), "max_model_len": self.context, "tokens": ids})

    def _detokenize(self, body: dict[str, Any]) -> Reply:
        return Reply.of_json({"prompt": self.decode(body["tokens"])})

    def _embeddings(self, body: dict[str, Any]) -> Reply | None:
        encoding, dimensions = body.get("encoding_format", "float"), body.get("dimensions")
        if encoding not in ("float", "base64") and self.release < BYTES_ONLY:
            raise Refused(400, "Input should be 'float' or 'base64'", "Bad Request")
        if dimensions and not self.matryoshka:
            raise Refused(400, f"Model '{self.model}' does not support Matryoshka embeddings")
        if not body["input"]:
            raise Refused(400, "You must pass at least one prompt")
        prompts = []
        for text in body["input"]:
            ids = [*self.encode(text), *self.encode(END_TOKEN)] if isinstance(text, str) else text
            if "truncate_prompt_tokens" in body:
                ids = [*ids[:-1][: body["truncate_prompt_tokens"] - 1], ids[-1]]
            prompts.append(ids)
        if self._never_answers(prompts):
            return None
        vectors = [self.vector(ids, dimensions) for ids in prompts]
        chosen = body.get("embed_dtype", "float32") if self.release >= EMBED_DTYPE else "float32"
        dtype = {"float32": "<f4", "float16": "<f2"}[chosen]
        if encoding == "bytes_only":
            content = np.stack(vectors).astype(dtype).tobytes()
            return Reply(200, content, {"Content-Type": "application/octet-stream"})
        data = [
            {
                "index": index,
                "embedding": (
                    v.tolist()
                    if encoding == "float"
                    else base64.b64encode(v.astype(dtype).tobytes()).decode()
                ),
            }
            for index, v in enumerate(vectors)
        ]
        return self._answer(data, prompts)

    def _score(self, body: dict[str, Any]) -> Reply | None:
        prompts = [self._prompt(query, document, body) for query, document in self._pairs(body)]
        if self._never_answers(prompts):
            return None
        return self._answer(
            [{"index": i, "score": self.probability(p)} for i, p in enumerate(prompts)], prompts
        )

    def _cosines(self, body: dict[str, Any]) -> Reply:
        pairs = self._pairs(body)
        scores = [float(self.vector(query) @ self.vector(document)) for query, document in pairs]
        data = [{"index": i, "score": score} for i, score in enumerate(scores)]
        return self._answer(data, [self.encode(query + document) for query, document in pairs])

    def _classify(self, body: dict[str, Any]) -> Reply | None:
        if any(not isinstance(text, str) for text in body["input"]) and self.release < CLASSIFY_TOKENS:
            raise Refused(400, "Input should be a valid string", "Bad Request")
        prompts = [self.encode(text) if isinstance(text, str) else text for text in body["input"]]
        if self._never_answers(prompts):
            return None
        data = [
            {"index": i, "label": "LABEL_0", "probs": [self.probability(p)], "num_classes": 1}
            for i, p in enumerate(prompts)
        ]
        return self._answer(data, prompts)

    def _pairs(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        queries, documents = body["text_1"], body["text_2"]
        queries = [queries] * len(documents) if isinstance(queries, str) else queries
        if len(queries) != len(documents):
            raise Refused(400, "Input lengths must be either 1:1, 1:N or N:N")
        if not documents:
            raise Refused(400, "At least one text_pair element must be given")
        if self.release < EMPTY_TEXTS and not all(queries + documents):
            raise Refused(400, "The decoder prompt cannot be empty")
        return list(zip(queries, documents, strict=True))

    def _prompt(self, query: str, document: str, body: dict[str, Any]) -> list[int]:
        if self.kind == "cross-encoder":
            return self.encode(f"<s>{query}</s></s>{document}</s>")
        if self.template is None or self.release < SCORE_TEMPLATE:
            return self.encode(query + document)
        taken = ("instruction",) if self.release >= SCORE_INSTRUCTION else ()
        variables = {name: body[name] for name in taken if name in body}
        messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        return self.encode(render(self.template, messages=messages, **variables))

    def _never_answers(self, prompts: list[list[int]]) -> bool:
        """Refuse what is too long; before 0.32 an input of exactly the context length hangs for ever."""
        longest = max(map(len, prompts))
        if longest > self.context:
            words = f"This model's maximum context length is {self.context} tokens. However, "
            if self.release < LONGEST_PROMPT:
                words += f"you requested {longest} tokens in the input for score generation."
            elif self.release < FULL_CONTEXT:
                words += f"you requested 0 output tokens and your prompt contains {longest} input tokens, "
            else:
                words += f"your prompt contains {longest} input tokens, which exceeds this limit even "
                words += "without any output tokens. Please reduce the length of the input prompt."
            raise Refused(400, words)
        return longest == self.context and self.release < FULL_CONTEXT

    # --- shapes ----------------------------------------------------------------------------------------

    @staticmethod
    def _key_of(request: Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    def _answer(self, data: list[dict[str, Any]], prompts: list[list[int]]) -> Reply:
        tokens = sum(map(len, prompts))
        usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if self.counts else {}
        return Reply.of_json({"object": "list", "model": self.model, "data": data, **usage})

    def _not_served(self, path: str) -> Reply:
        if self.release >= NO_SUCH_ROUTE:
            return Reply.of_json({"detail": "Not Found"}, 404)
        name = path.rpartition("/")[2].capitalize()
        return self._error(Refused(400, f"The model does not support {name} API"))

    def _error(self, refused: Refused) -> Reply:
        fields = {"message": str(refused), "type": refused.kind, "param": None, "code": refused.status}
        if self.release < NESTED_ERRORS:
            return Reply.of_json({"object": "error", **fields}, refused.status)
        return Reply.of_json({"error": fields}, 200 if self.release == ERRORS_AS_SUCCESS else refused.status)


def _with_id(reply: Reply | None, request_id: str | None) -> Reply | None:
    """Repeat the request's id, as vLLM does in all answers that hold results as JSON."""
    if reply is None or request_id is None or not reply.content.startswith(b'{"object"'):
        return reply
    return Reply(reply.status, b'{"id": "embd-%b", ' % request_id.encode() + reply.content[1:], reply.headers)


def render(template: str, **variables: Any) -> str:
    """Render as Transformers does, which vLLM uses."""
    return _compiled(template).render(**variables)


@cache
def _compiled(template: str) -> jinja2.Template:
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
