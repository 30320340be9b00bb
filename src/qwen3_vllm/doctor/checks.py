"""What an examination finds, and the means to make one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, Protocol, TypeVar

from pydantic import SecretStr

from qwen3_vllm import errors
from qwen3_vllm._core.client import Client, transport_of, try_once
from qwen3_vllm._core.discovery.capabilities import try_all
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.http.flow import Flow, send, send_one
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.settings import ServerSettings
from qwen3_vllm._core.vllm_api.calls import Call

T = TypeVar("T")
Status = Literal["ok", "warn", "fail", "skip"]
Values = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: The server and what was looked at, as in "reranker.template".
        status: "warn": this package works around it, other clients may not.
        seen: What was found, in words.
        advice: What to do; empty where there is nothing to do.
        values: Scores behind the finding, by how their pairs were sent, the right way first.
    """

    name: str
    status: Status
    seen: str
    advice: str = ""
    values: Values = field(default_factory=dict)


class Note(Protocol):
    """Notes what was found in one check."""

    def __call__(self, status: Status, seen: str, advice: str = "", values: Values | None = None) -> None: ...


class Examination:
    """Collects the checks of one server, and asks it: with the key, or as a stranger without."""

    def __init__(self, section: str, client: Client[Any], start: str) -> None:
        self.settings: ServerSettings = client.settings
        self.start = start
        self.checks: list[Check] = []
        self._section = section
        self._transport = transport_of(client)

    @property
    def root(self) -> str:
        """Where the server is, as far as is known by now."""
        return self._transport.root

    @cached_property
    def _stranger(self) -> Transport:
        way = {name: getattr(self.settings, name) for name in ("base_url", "timeout", "verify", "proxy")}
        nobody = ServerSettings(**way, api_key=SecretStr(""), max_retries=0)
        return Transport(nobody, start_command=self.start)

    @property
    def has_key(self) -> bool:
        return bool(self.settings.api_key)

    def note(
        self, name: str, status: Status, seen: str, advice: str = "", values: Values | None = None
    ) -> None:
        self.checks.append(Check(f"{self._section}.{name}", status, seen, advice, values or {}))

    @contextmanager
    def checking(self, name: str, advice: str = "") -> Iterator[Note]:
        """Yield what notes the check `name`; an error of the block fails it."""
        note: Note = partial(self.note, name)
        try:
            yield note
        except errors.Qwen3VLLMError as error:
            note("fail", str(error), advice or self._what_to_do(error))

    def run(self, flow: Flow[T]) -> T:
        return self._transport.run(flow)

    def ask(self, call: Call[T]) -> T:
        return self.run(send_one(call))

    def ask_if_there(self, call: Call[T]) -> T | errors.Qwen3VLLMError:
        """Ask what a server, or a gateway before it, may lack: an error says that it does, in its words."""
        (answer,) = self.run(try_all(call))
        return answer

    def ask_as_stranger(self, *calls: Call[Any]) -> list[Any]:
        """Send calls without the key; an error stands for the response."""
        return self._stranger.run(send(*calls))

    def _what_to_do(self, error: errors.Qwen3VLLMError) -> str:
        match error:
            case errors.AuthenticationError():
                return "Put the server's key into VLLM_API_KEY or --api-key-file"
            case errors.ServerUnreachableError(cause="tls"):
                return "Use http:// if the server has no TLS, or install its certificate authority"
            case errors.ServerUnreachableError():
                return f"Check address and port; start a server by: {self.start}"
            case errors.RequestTimeoutError() | errors.OverloadedError():
                return (
                    "See in the server's log and /metrics whether it is busy or stuck; try a longer --timeout"
                )
            case errors.RouteNotFoundError() | errors.WrongServerError() | errors.InvalidAnswerError():
                return f"This may be another kind of server; start one by: {self.start}"
            case _:
                return "Look into the server's log"


def examine_together(client: EmbeddingClient | RerankClient) -> list[Check]:
    """Look whether all addresses of a client serve one model."""
    section = "embedding" if isinstance(client, EmbeddingClient) else "reranker"
    examination = Examination(section, client, "")
    try:
        try_once(client)
    except errors.WrongServerError as error:
        advice = "Serve one model, with the same weights and --max-model-len, at all addresses"
        examination.note("addresses", "fail", str(error), advice)
    except errors.Qwen3VLLMError as error:
        examination.note("addresses", "fail", str(error), "See above what is wrong at each address")
    else:
        examination.note("addresses", "ok", "all that can be reached serve one model")
    return examination.checks
