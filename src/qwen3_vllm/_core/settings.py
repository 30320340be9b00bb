"""Options shared by the clients and the adapters: the argument, then the environment, then the default."""

import os
import ssl
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from qwen3_vllm._core.invalid_text import InvalidText
from qwen3_vllm._core.option_values import (
    AskKey,
    bare_key,
    checked_base_url,
    checked_cert,
    checked_extra_body,
    checked_headers,
    checked_instruction,
    checked_key,
    checked_proxy,
    checked_verify,
    frozen,
    key_or_function,
    written_path,
)
from qwen3_vllm._core.options import Options
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION
from qwen3_vllm.errors import ConfigurationError

# Measured on one H100 with documents of 128 tokens: 16 requests of 32 documents in flight fill a server with
# one API process (1,077 documents/s; 64 give 1,136). Of two, one often gets most of the connections and is
# the limit: 16 give 1,506, 64 give 1,727. More only adds latency.
BATCH_SIZE = 32
MAX_CONCURRENCY = 32
Template = Literal["auto", "client", "server"]
Verify: TypeAlias = bool | str | ssl.SSLContext
Certificate: TypeAlias = str | tuple[str, str]
S = TypeVar("S", bound="ServerSettings")
_SECRETS = frozenset({"api_key", "default_headers"})


def _from_environment(name: str, default: str) -> Callable[[], str]:
    return lambda: os.environ.get(name) or default


def _api_key_from_environment() -> SecretStr | None:
    key = bare_key(os.environ.get("VLLM_API_KEY", "").strip())
    return SecretStr(key) if key else None


class ServerSettings(Options):
    """Options of any client of a vLLM server. An option given as None has its default.

    Attributes:
        base_url: Server's address, with or without `/v1`. Several, as a list or separated by commas: servers
            of one model, which share the work.
        model: The model's name at the server. None: the first of `/v1/models`, asked once.
        api_key: Sent as a bearer token [VLLM_API_KEY]; a `Bearer` before it is dropped. Never shown, logged
            or serialised. "": no key, whatever the environment has. A function, sync or async, is called for
            each request, on a thread of this library, and once more after a 401.
        timeout: Seconds for one request, from connecting to the last byte of the response.
        total_timeout: Seconds for one call of a client, with all its requests and waits. None: no limit but
            each request's `timeout`.
        max_retries: How often a failed request is sent again: lost connections, time-outs (once), 429,
            500, 502, 503 (after what Retry-After says) and 504.
        max_concurrency: Maximum concurrent requests, across all calls and servers; a server gets fewer while
            it responds with 503 or 429, or is too slow for `timeout`.
        batch_size: Maximum texts per request.
        instruction: Task sentence for queries, in English even for other languages (Qwen's advice).
        default_headers: More HTTP headers for each request; secret, like `api_key`.
        verify: Which certificates to accept. True: those signed by the system's authorities, or those of
            SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE. A path: by the authorities in this file or
            folder. An SSLContext: as it says. False: all, with a warning.
        cert: A client certificate: a PEM file, or the files of the certificate and of its key.
        proxy: URL of an HTTP proxy; False or "": no proxy. None: HTTP_PROXY, HTTPS_PROXY or ALL_PROXY of the
            environment, unless NO_PROXY names the server.
        invalid_text: What to do with texts that have lone surrogates, which UTF-8 cannot encode. "error":
            InputError with their indexes. "replace": each is sent as U+FFFD, with one warning per call.
        extra_body: More fields for each request to the model.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    base_url: str | Sequence[str]
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
    invalid_text: InvalidText = "error"
    extra_body: dict[str, Any] | None = Field(default=None, repr=False)

    _check_base_url = field_validator("base_url", mode="before")(checked_base_url)
    _freeze_base_url = field_validator("base_url")(frozen)
    _take_key_or_function = field_validator("api_key", mode="before")(key_or_function)
    _check_key = field_validator("api_key")(checked_key)
    _check_headers = field_validator("default_headers")(checked_headers)
    _check_verify = field_validator("verify", mode="before")(checked_verify)
    _check_cert = field_validator("cert", mode="before")(checked_cert)
    _check_proxy = field_validator("proxy", mode="before")(checked_proxy)
    _check_extra_body = field_validator("extra_body")(checked_extra_body)

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


def addresses_of(settings: ServerSettings) -> tuple[str, ...]:
    """Where the servers of a client are."""
    return (settings.base_url,) if isinstance(settings.base_url, str) else tuple(settings.base_url)


def of_each_server(settings: S) -> list[S]:
    """The settings of each server of a client."""
    addresses = addresses_of(settings)
    if len(addresses) == 1:
        return [settings]
    return [type(settings)(**{**dict(settings), "base_url": address}) for address in addresses]


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
        dimensions: Keep so many of a vector's first components (Matryoshka). None: all of the model's.
        truncate: Cut texts longer than the server's context. False: raise TooLongError.
        wire_dtype: Type of the components in responses. "float16" halves the bytes, with an error below 1e-3
            in cosine, from vLLM 0.13; older servers send float32. Vectors are returned as float32 either way.
    """

    base_url: str | Sequence[str] = Field(
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
            finished prompts. "server": the server, which gets raw texts. A server that contradicts either
            option is an error.
        max_tokens_per_doc: Keep this many of a document's tokens. None: what fits the server's context.
        truncate: Cut documents that do not fit the context. False: raise TooLongError.
        tokenizer: The model's tokenizer.json, or a folder with it, to cut documents exactly where the server
            has no /tokenize; needs the extra `tokenizers`. None: they are cut by bytes there.
    """

    base_url: str | Sequence[str] = Field(
        default_factory=_from_environment("QWEN3_RERANKER_URL", "http://127.0.0.1:8001")
    )
    template: Template = "auto"
    max_tokens_per_doc: int | None = Field(default=None, ge=1)
    truncate: bool = True
    tokenizer: str | None = None

    _take_path = field_validator("tokenizer", mode="before")(written_path)
    _check_instruction = field_validator("instruction")(checked_instruction)
