"""Options shared by the clients and the adapters: the argument, then the environment, then the default."""

import os
import re
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from qwen3_vllm._core.options import Options
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION

# Measured on one H100 with documents of 128 tokens: 16 requests of 32 documents in flight fill a server with
# one API process (1,077 documents/s; 64 give 1,136). Of two, one often gets most of the connections and is
# the limit: 16 give 1,506, 64 give 1,727. More only adds latency.
BATCH_SIZE = 32
MAX_CONCURRENCY = 32
# What people paste after the address. Alone it could be a gateway's prefix: then `/v1` follows it.
_ROUTE = re.compile(
    r"(?:.*/v\d)?/(?:embeddings|embed|score|rerank|classify|pooling|tokenize|detokenize|models|health|version"
    r"|metrics|completions|chat/completions)"
)
_SCHEME = re.compile(r"(?:bearer(?:\s+|$))*", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
Template = Literal["auto", "client", "server"]
_SECRETS = ("api_key", "default_headers")


def _names_host(hostname: str | None) -> bool:
    """Whether a hostname, or an IPv6 address, has no empty part and no space."""
    if not hostname or re.search(r"\s", hostname):
        return False
    return ":" in hostname or all(hostname.removesuffix(".").split("."))


def _from_environment(name: str, default: str) -> Callable[[], str]:
    return lambda: os.environ.get(name) or default


def _bare(key: str) -> str:
    """The key itself, where it was given with its scheme: `Bearer sk…`."""
    return _SCHEME.sub("", key.strip(" "), count=1)


def _api_key_from_environment() -> SecretStr | None:
    key = _bare(os.environ.get("VLLM_API_KEY", "").strip())
    return SecretStr(key) if key else None


class ServerSettings(Options):
    """Options of any client of a vLLM server. An option given as None has its default.

    Attributes:
        base_url: Server's address, with or without `/v1`.
        model: Name the server knows the model by. None: the first of `/v1/models`, asked once.
        api_key: Sent as a bearer token [VLLM_API_KEY], `Bearer` before it is left out; never shown, never
            serialised.
        timeout: Seconds one request may take in all, from connecting to the last byte of the answer.
        total_timeout: Seconds one call of a client may take in all: each request, each wait, the questions
            before the first. None: no limit but each request's `timeout`.
        max_retries: How often a failed request is sent again: lost connections, time-outs (once), 429,
            500, 502, 503 (after what Retry-After says) and 504.
        max_concurrency: Requests in flight at most, whatever number of calls they belong to; fewer while
            the server says 503 or 429, or is too slow for `timeout`.
        batch_size: Texts a request, at most.
        instruction: Task sentence for queries, in English even for other languages (Qwen's advice).
        default_headers: More HTTP headers for each request; never shown, never serialised.
    """

    model_config = ConfigDict(frozen=True)

    base_url: str
    model: str | None = None
    api_key: SecretStr | None = Field(default_factory=_api_key_from_environment, exclude=True, repr=False)
    timeout: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    total_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_retries: int = Field(default=3, ge=0)
    max_concurrency: int = Field(default=MAX_CONCURRENCY, ge=1)
    batch_size: int = Field(default=BATCH_SIZE, ge=1)
    instruction: str = DEFAULT_INSTRUCTION
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        url = url.strip()
        try:
            parts = urlsplit(url)
            # Reading the port checks it.
            valid = parts.scheme in ("http", "https") and _names_host(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("base_url must look like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "base_url must hold no user, password, query or fragment: it appears in errors and logs; "
                "pass credentials as api_key or default_headers"
            )
        if _ROUTE.fullmatch(parts.path.rstrip("/")):
            raise ValueError(
                "base_url must be the server's address: leave the route out, as in http://127.0.0.1:8000/v1; "
                "behind a prefix of that name, write /v1 after it"
            )
        return url.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        bare = _bare(key.get_secret_value()) if key else ""
        if not bare.strip():
            return None
        if not bare.isascii() or not bare.isprintable():
            raise ValueError("api_key must be printable ASCII")
        return SecretStr(bare)

    @field_validator("default_headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (headers or {}).items():
            if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
                raise ValueError("default_headers must have names of HTTP headers, and values of one line")
        return headers

    @model_validator(mode="before")
    @classmethod
    def _none_means_default(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        return {name: value for name, value in options.items() if value is not None or cls._takes_none(name)}

    @classmethod
    def _takes_none(cls, name: str) -> bool:
        """Whether None says something of its own, as with `top_n`: its default is another constant."""
        field = cls.model_fields.get(name)
        return field is not None and field.default_factory is None and NoneType in get_args(field.annotation)

    def __getstate__(self) -> dict[Any, Any]:
        # Pickles reach disks and other hosts: keys stay here, and are read from the environment there.
        fields = {name: value for name, value in self.__dict__.items() if name not in _SECRETS}
        return {**super().__getstate__(), "__dict__": fields, "__pydantic_private__": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        secrets = {"api_key": _api_key_from_environment(), "default_headers": None}
        super().__setstate__({**state, "__dict__": {**secrets, **state["__dict__"]}})
        self.model_post_init(None)


class EmbeddingSettings(ServerSettings):
    """Options for embedding.

    Attributes:
        base_url: [QWEN3_EMBEDDING_URL], default `http://127.0.0.1:8000/v1`.
        dimensions: Length of the vectors, cut as Matryoshka embeddings are. None: the model's own.
        truncate: Cut texts longer than the server's context. False: raise TooLongError.
        wire_dtype: The type that vectors travel in. "float16" halves the bytes, at an error under 1e-3 in
            cosine, from vLLM 0.13; older ones send float32. Vectors come back as float32 anyway.
    """

    base_url: str = Field(
        default_factory=_from_environment("QWEN3_EMBEDDING_URL", "http://127.0.0.1:8000/v1")
    )
    dimensions: int | None = Field(default=None, ge=1)
    truncate: bool = True
    wire_dtype: Literal["float32", "float16"] = "float32"


class RerankSettings(ServerSettings):
    """Options for reranking.

    Attributes:
        base_url: [QWEN3_RERANKER_URL], default `http://127.0.0.1:8001`.
        template: Who applies the chat template. "auto" asks the server. "client": this client, which sends
            finished prompts. "server": the server, which gets raw texts. A server that contradicts either is
            an error.
        max_tokens_per_doc: Keep this many of a document's tokens. None: what fits the server's context.
        truncate: Cut documents that do not fit the context. False: raise TooLongError.
    """

    base_url: str = Field(default_factory=_from_environment("QWEN3_RERANKER_URL", "http://127.0.0.1:8001"))
    template: Template = "auto"
    max_tokens_per_doc: int | None = Field(default=None, ge=1)
    truncate: bool = True

    @field_validator("instruction")
    @classmethod
    def _instruction_not_empty(cls, instruction: str) -> str:
        if not instruction.strip():
            raise ValueError("the reranker's prompt needs an instruction; leave it out for Qwen's own")
        return instruction
