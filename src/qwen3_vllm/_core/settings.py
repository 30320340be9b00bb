"""Options shared by the clients and the adapters: the argument, then the environment, then the default."""

import os
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, TypeAlias, get_args
from urllib.parse import urlsplit

import orjson
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from qwen3_vllm._core.options import Options
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from qwen3_vllm.errors import ConfigurationError

# Measured on one H100 with documents of 128 tokens: 16 requests of 32 documents in flight fill a server with
# one API process (1,077 documents/s; 64 give 1,136). Of two, one often gets most of the connections and is
# the limit: 16 give 1,506, 64 give 1,727. More only adds latency.
BATCH_SIZE = 32
MAX_CONCURRENCY = 32
_SCHEME = re.compile(r"(?:bearer(?:\s+|$))*", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
Template = Literal["auto", "client", "server"]
AskKey: TypeAlias = Callable[[], str | SecretStr | Awaitable[str | SecretStr]]
Verify: TypeAlias = bool | str | ssl.SSLContext
Certificate: TypeAlias = str | tuple[str, str]
_SECRETS = frozenset({"api_key", "default_headers"})
# What a client itself says in a request: `extra_body` cannot.
_OWN_FIELDS = frozenset({
    "dimensions", "documents", "embed_dtype", "encoding_format", "endianness", "input", "instruction",
    "model", "query", "text_1", "text_2", "top_n", "truncate_prompt_tokens",
})  # fmt: skip


def _names_host(hostname: str | None) -> bool:
    """Whether a hostname, or an IPv6 address, has no empty part and no space."""
    if not hostname or re.search(r"\s", hostname):
        return False
    return ":" in hostname or all(hostname.removesuffix(".").split("."))


def _from_environment(name: str, default: str) -> Callable[[], str]:
    return lambda: os.environ.get(name) or default


def bare_key(key: str) -> str:
    """The key itself, where it was given with its scheme: `Bearer sk…`."""
    return _SCHEME.sub("", key.strip(" "), count=1)


def _path(value: object) -> object:
    return str(value.expanduser()) if isinstance(value, Path) else value


def is_sendable(key: str) -> bool:
    """Whether a bare key can stand in an HTTP header."""
    return bool(key.strip()) and key.isascii() and key.isprintable()


def _api_key_from_environment() -> SecretStr | None:
    key = bare_key(os.environ.get("VLLM_API_KEY", "").strip())
    return SecretStr(key) if key else None


class ServerSettings(Options):
    """Options of any client of a vLLM server. An option given as None has its default.

    Attributes:
        base_url: Server's address, with or without `/v1`.
        model: Name the server knows the model by. None: the first of `/v1/models`, asked once.
        api_key: Sent as a bearer token [VLLM_API_KEY], `Bearer` before it is left out; never shown, never
            serialised. "": none, whatever the environment has. A function, sync or async, is called for each
            request, on a thread of this library, and once more after a 401.
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
        verify: Whose certificates to trust. True: the system's authorities, or those of SSL_CERT_FILE,
            SSL_CERT_DIR or REQUESTS_CA_BUNDLE. A path: the authorities in this file or folder. An SSLContext:
            what it says. False: everybody's, with a warning.
        cert: A certificate to show to the server: a PEM file, or one and that of its key.
        proxy: URL of an HTTP proxy; False or "": none. None: HTTP_PROXY, HTTPS_PROXY or ALL_PROXY of the
            environment, unless NO_PROXY names the server.
        invalid_text: What becomes of texts with lone surrogates, which UTF-8 cannot hold. "error": InputError
            with their indexes. "replace": each is sent as U+FFFD, with one warning per call.
        extra_body: More fields for each request to the model.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    base_url: str
    model: str | None = None
    api_key: SecretStr | SkipJsonSchema[AskKey] | None = Field(
        default_factory=_api_key_from_environment, exclude=True, repr=False
    )
    timeout: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    total_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_retries: int = Field(default=3, ge=0)
    max_concurrency: int = Field(default=MAX_CONCURRENCY, ge=1)
    batch_size: int = Field(default=BATCH_SIZE, ge=1)
    instruction: str = DEFAULT_INSTRUCTION
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    verify: bool | str | SkipJsonSchema[ssl.SSLContext] = True
    cert: Certificate | None = None
    proxy: SecretStr | Literal[False] | None = Field(default=None, exclude=True, repr=False)
    invalid_text: Literal["error", "replace"] = "error"
    extra_body: dict[str, Any] | None = Field(default=None, repr=False)

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
        return url.rstrip("/")

    @field_validator("api_key", mode="before")
    @classmethod
    def _key_or_function(cls, key: object) -> object:
        if not isinstance(key, str | SecretStr | None) and not callable(key):
            raise ValueError("api_key must be a string, or a function that returns one")
        return key

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, key: SecretStr | AskKey | None) -> SecretStr | AskKey | None:
        if key is None or not isinstance(key, SecretStr):
            return key
        bare = bare_key(key.get_secret_value())
        if not bare.strip():
            return SecretStr("")  # None would be the environment's, in a copy too
        if not is_sendable(bare):
            raise ValueError("api_key must be printable ASCII")
        return SecretStr(bare)

    @field_validator("verify", mode="before")
    @classmethod
    def _check_verify(cls, verify: object) -> object:
        if (not verify and verify is not False) or not isinstance(verify, bool | str | Path | ssl.SSLContext):
            raise ValueError(
                "verify must be True, False, the path of a file of authorities, or an SSLContext"
            )
        return _path(verify)

    @field_validator("cert", mode="before")
    @classmethod
    def _check_cert(cls, cert: object) -> object:
        if cert is None:
            return None
        files = tuple(map(_path, cert)) if isinstance(cert, tuple | list) else (_path(cert),)
        if not all(isinstance(file, str) and file for file in files) or len(files) not in (1, 2):
            raise ValueError("cert must be the path of a PEM file, or two: of the certificate and of its key")
        return files[0] if len(files) == 1 else files

    @field_validator("proxy", mode="before")
    @classmethod
    def _check_proxy(cls, proxy: object) -> object:
        if proxy is not None and proxy is not False and not isinstance(proxy, str | SecretStr):
            raise ValueError("proxy must be a URL, or False for none")
        return False if proxy == "" else proxy

    @field_validator("extra_body")
    @classmethod
    def _check_extra_body(cls, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        own = sorted(_OWN_FIELDS.intersection(fields or ()))
        if own:
            raise ValueError(f"extra_body must leave {', '.join(own)} to the client")
        try:
            orjson.dumps(fields)
        except TypeError:
            raise ValueError("extra_body must hold what JSON can write") from None
        return fields

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
        check_picklable(self, type(self))
        kept = {"api_key"} if self.api_key == SecretStr("") else set()
        fields = {name: value for name, value in self.__dict__.items() if name not in _SECRETS - kept}
        return {**super().__getstate__(), "__dict__": fields, "__pydantic_private__": None}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self.verify)], memo[id(self.api_key)] = self.verify, self.api_key  # shared by copies
        return super().__deepcopy__(memo)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        secrets = {"api_key": _api_key_from_environment(), "default_headers": None}
        super().__setstate__({**state, "__dict__": {**secrets, **state["__dict__"]}})
        self.model_post_init(None)


def check_picklable(settings: ServerSettings, owner: type) -> None:
    """Refuse options that another process cannot get; the error names `owner`, and what to do instead."""
    if settings.api_key is not None and not isinstance(settings.api_key, SecretStr):
        problem = "api_key is a function: set VLLM_API_KEY where it is unpickled, or make the object there"
    elif isinstance(settings.verify, ssl.SSLContext):
        problem = "verify is an SSLContext: pass the path of a file of authorities, or make the object there"
    elif isinstance(settings.proxy, SecretStr) and "@" in settings.proxy.get_secret_value():
        problem = "proxy holds a password: set HTTPS_PROXY, or HTTP_PROXY, where it is unpickled"
    else:
        return
    raise ConfigurationError(f"{owner.__name__} cannot be pickled: {problem}")


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
        tokenizer: The model's tokenizer.json, or a folder with it, to cut documents exactly where the server
            has no /tokenize; needs the extra `tokenizers`. None: they are cut by their bytes there.
    """

    base_url: str = Field(default_factory=_from_environment("QWEN3_RERANKER_URL", "http://127.0.0.1:8001"))
    template: Template = "auto"
    max_tokens_per_doc: int | None = Field(default=None, ge=1)
    truncate: bool = True
    tokenizer: str | None = None

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _take_path(cls, tokenizer: object) -> object:
        return _path(tokenizer)

    @field_validator("instruction")
    @classmethod
    def _instruction_not_empty(cls, instruction: str) -> str:
        if not instruction.strip():
            raise ValueError("the reranker's prompt needs an instruction; leave it out for Qwen's own")
        return instruction
