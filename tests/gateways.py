"""What stands between a client and vLLM, as data: each shape is a `Gateway` with a few fields set.

A gateway refuses in one way, which a test chooses: a status and a kind of body. Some say no with status 200,
or send the user to a page to log in.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.fake_vllm import FakeVLLM, Refused
from tests.faults import Reply, Request

# Those in one line mean the same to a client, and are told apart nowhere: see `raise_for_error`.
STATUSES = (
    *((200,), (302,), (501,)),
    (400, 413, 422),
    (401, 403),
    (404, 405),
    (409, 415),
    (500, 502),
)
BODIES: Mapping[str, tuple[str, bytes]] = {
    "JSON": ("application/json", b'{"error": {"message": "not for you", "type": "policy", "code": "x1"}}'),
    "HTML": ("text/html", b"<!DOCTYPE html><html><body><h1>Portal</h1>Please log in.</body></html>"),
    "empty": ("text/plain", b""),
    "plain": ("text/plain", b"upstream refused this"),
}
ANY = None
RESTING = "No deployments available for selected model, Try again in 5 seconds. Passed model=embed."


@dataclass
class Gateway:
    """One hop in front of one server.

    Attributes:
        passes: Beginnings of the paths that it passes on.
        blocks: Paths that it refuses all the same.
        refuses: Fields of a body that it refuses, with the values refused (ANY: whatever the value).
        ignores: Fields of a body that it leaves out.
        base: What stands in its paths instead of /v1; no other route is passed then.
        most_texts: In one request.
        drops: Fields of responses, or of the lines of the list of models, that it leaves out.
        version: What it says at /version, of itself.
        names: Models that it answers for; the server's own name is put in. None: the server's name alone.
        lists: Names, or whole lines, in its list; None: the server's own lines.
        rerank: It has /v1/rerank in this shape, in place of /v1/score.
        key: It asks for this on every route.
        hides_words: It replaces the server's own refusals by its own.
        rests: After it, or the server, has refused something, it answers the next request with 429.
        refusal: Status and kind of body of what it refuses.
    """

    server: FakeVLLM
    passes: tuple[str, ...] = ("/",)
    blocks: tuple[str, ...] = ()
    refuses: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()
    base: str = "/v1"
    most_texts: int | None = None
    drops: tuple[str, ...] = ()
    version: str | None = None
    names: tuple[str, ...] | None = None
    lists: tuple[str | dict[str, object], ...] | None = None
    rerank: Literal["jina", "cohere"] | None = None
    key: str | None = None
    hides_words: bool = False
    rests: bool = False
    refusal: tuple[int, str] = (404, "JSON")
    _resting: bool = field(default=False, init=False)

    def __call__(self, request: Request) -> Reply | None:
        if self._resting:
            self._resting = False
            return Reply.of_json({"error": {"message": RESTING, "type": "None", "code": "429"}}, 429)
        reply = self._answer(request)
        routed = request.path in (
            "/v1/embeddings",
            "/v1/rerank",
        )  # the others are its own, and refused at once
        self._resting = self.rests and routed and reply is not None and reply.status != 200
        return reply

    def _answer(self, request: Request) -> Reply | None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply.of_json({"error": {"message": "No api key passed in."}}, 401)
        path = self._path(request.path)
        if path is None or path in self.blocks or not path.startswith(self.passes):
            return self._refuse()
        if path == "/version" and self.version:
            return Reply.of_json({"version": self.version})
        if path == "/v1/models" and self.lists is not None:
            lines = [{"id": line} if isinstance(line, str) else line for line in self.lists]
            return Reply.of_json({"data": [{"object": "model", **line} for line in lines]})
        body = request.json if request.body else {}
        if not self._takes(body):
            return self._refuse()
        body = {name: value for name, value in body.items() if name not in self.ignores}
        if self.names is not None and "model" in body:
            if body["model"] not in self.names:
                return self._refuse()
            body["model"] = self.server.model
        if self.rerank and path == "/v1/score":
            return self._refuse()
        if self.rerank and path == "/v1/rerank":
            return self._reranked(body)
        passed = replace(request, path=path, body=json.dumps(body).encode() if request.body else b"")
        return self._passed_back(self.server(passed))

    def _path(self, path: str) -> str | None:
        """The server's path; None if this is nowhere in the gateway."""
        if self.base == "/v1":
            return path
        return "/v1" + path.removeprefix(self.base) if path.startswith(self.base + "/") else None

    def _takes(self, body: dict[str, Any]) -> bool:
        for name, values in self.refuses.items():
            if name in body and (values is None or body[name] in values):
                return False
        texts = body.get("input") or body.get("text_2") or body.get("documents") or ()
        return self.most_texts is None or isinstance(texts, str) or len(texts) <= self.most_texts

    def _refuse(self) -> Reply:
        status, kind = self.refusal
        content_type, content = BODIES[kind]
        return Reply(status, content, {"Content-Type": content_type})

    def _passed_back(self, reply: Reply | None) -> Reply | None:
        if reply is None:
            return None
        if reply.status >= 400 and self.hides_words:
            return self._refuse()
        if not self.drops or not reply.content.startswith(b"{"):
            return reply
        return Reply.of_json(_without(json.loads(reply.content), self.drops), reply.status)

    def _reranked(self, body: dict[str, Any]) -> Reply | None:
        """Answer as Jina or Cohere do: best first, with the tokens counted where each of them counts them."""
        scored = {"model": body["model"], "text_1": body["query"], "text_2": body["documents"]}
        if "instruction" in body:
            scored["instruction"] = body["instruction"]
        try:
            reply = self.server._score(scored)
        except Refused as refused:
            reply = self.server._error(refused)
        if reply is None or b'"data"' not in reply.content:  # 0.15.1 refuses with status 200
            return self._passed_back(reply)
        answer = json.loads(reply.content)
        results = [{"index": item["index"], "relevance_score": item["score"]} for item in answer["data"]]
        results.sort(key=lambda item: -item["relevance_score"])
        tokens = answer.get("usage", {}).get("total_tokens")
        if self.rerank == "jina":
            shaped: dict[str, Any] = {"model": body["model"], "usage": {"total_tokens": tokens}}
        else:
            shaped = {"id": "r-1", "meta": {"billed_units": {"total_tokens": tokens}}}
        if tokens is None:
            shaped = {"id": "r-1"}
        return self._passed_back(Reply.of_json({**shaped, "results": results}))


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(each, names) for name, each in value.items() if name not in names}
    if isinstance(value, list):
        return [_without(each, names) for each in value]
    return value
