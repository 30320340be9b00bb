"""What goes into a server's command line, and the command that comes out. Plain data."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from qwen3_vllm._core.official_models import Role
from qwen3_vllm.errors import ConfigurationError

Device = Literal["auto", "cuda", "cpu"]

DEFAULT_PORT: dict[Role, int] = {"embedding": 8000, "reranker": 8001}


@dataclass(frozen=True)
class Help:
    """What `qwen3-vllm serve --help` says of a field; fields without one are not options of the command."""

    text: str


@dataclass(frozen=True)
class ServeOptions:
    """What the user asked for; None means that the launcher chooses, and says what and why.

    `model` is a folder or a hub id. `api_key` reaches the server by environment only. `extra_args` go to
    vLLM as they are and win over what the launcher would send.

    Raises:
        ConfigurationError: A value is of the wrong type; whether the values can work is seen at the start.
    """

    role: Role
    model: str
    port: Annotated[
        int | None,
        Help("Default 8000 (embedding), 8001 (reranker); 0: a free one; `both`: this and the next."),
    ] = None
    host: Annotated[str, Help("Address to listen on; a public one needs a key.")] = "127.0.0.1"
    served_model_name: Annotated[str | None, Help("Default qwen3_embedding, qwen3_reranker.")] = None
    dtype: Annotated[str, Help("auto, bfloat16, float16 or float32.")] = "auto"
    device: Annotated[Device, Help("auto: the GPU, if there is one.")] = "auto"
    quantization: Annotated[
        str | None, Help("fp8 on request; GPTQ, AWQ and the like are read from the checkpoint.")
    ] = None
    tensor_parallel_size: Annotated[int, Help("GPUs that share one copy of the model.")] = 1
    data_parallel_size: Annotated[int, Help("Copies of the model, one GPU each.")] = 1
    api_server_count: Annotated[
        int | None, Help("HTTP processes per server; default 2 with a GPU and 8 cores.")
    ] = None
    max_num_seqs: Annotated[int, Help("Texts computed at once.")] = 256
    max_model_len: Annotated[
        int | None, Help("Longest text in tokens; default 8192, or what the checkpoint allows.")
    ] = None
    gpu_memory_utilization: Annotated[
        float | None, Help("Share of the GPU for a model; default 0.45, or 0.9 if weights need it.")
    ] = None
    trust_remote_code: Annotated[bool, Help("Run code that the checkpoint brings. Qwen3 needs none.")] = False
    chat_template: Annotated[bool, Help("Let the server write the rerank prompt.")] = True
    prefix_caching: Annotated[bool | None, Help("Default: off for embeddings, on for reranking.")] = None
    api_key: str | None = field(default=None, repr=False)
    api_key_file: Annotated[
        Path | None, Help("One key per line; without it the key is VLLM_API_KEY, if set.")
    ] = None
    open_metrics: Annotated[bool, Help("Let /metrics be scraped without the key.")] = False
    access_log: Annotated[bool, Help("Write one line per request to vLLM's log.")] = False
    insecure: Annotated[bool, Help("Allow a public address without a key.")] = False
    extra_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # What worked without a check keeps working: paths as text, text as a path, a list of arguments.
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        if isinstance(self.api_key_file, str):
            object.__setattr__(self, "api_key_file", Path(self.api_key_file))
        if isinstance(self.extra_args, list):
            object.__setattr__(self, "extra_args", tuple(self.extra_args))
        problems = {
            name: _problem(name, value, kind)
            for name, kind in _field_types().items()
            if not _fits(value := getattr(self, name), kind)
        }
        if problems:
            refused = ConfigurationError(f"ServeOptions: {'; '.join(problems.values())}")
            refused.problems = problems
            raise refused

    @property
    def guarded(self) -> bool:
        return self.api_key is not None or self.api_key_file is not None

    @property
    def served_port(self) -> int:
        return DEFAULT_PORT[self.role] if self.port is None else self.port


@cache
def _field_types() -> dict[str, object]:
    return get_type_hints(ServeOptions)


_DESCRIPTIONS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Path: "a path",
    NoneType: "None",
    tuple[str, ...]: "a tuple of texts",
}


def _problem(name: str, value: object, kind: object) -> str:
    """Say what is wrong without the value, which may be a secret."""
    found = "" if get_origin(kind) is Literal else f", not {type(value).__name__}"
    return f"{name} must be {_described(kind)}{found}"


def _described(kind: object) -> str:
    if get_origin(kind) is UnionType:
        return " or ".join(map(_described, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _DESCRIPTIONS[kind]


def _fits(value: object, kind: object) -> bool:
    """Whether a value is of a field's type; True and False are not numbers."""
    if get_origin(kind) is UnionType:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)


@dataclass(frozen=True)
class Checkpoint:
    """What config.json (and its neighbours) say. Zero and None mean unknown, as for a model on a hub."""

    is_local: bool = False
    architectures: tuple[str, ...] = ()
    role: Role | None = None
    attention_heads: int = 0
    key_value_heads: int = 0
    layers: int = 0
    head_dim: int = 0
    dtype: str | None = None
    max_position_embeddings: int | None = None
    has_rope_scaling: bool = False
    quantization: str | None = None
    has_quantized_head: bool = False
    is_matryoshka: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    weights_bytes: int = 0

    @property
    def is_converted_reranker(self) -> bool:
        return any(name.endswith("ForSequenceClassification") for name in self.architectures)


@dataclass(frozen=True)
class Command:
    """A command line, the environment it adds, and one sentence for each choice made on the way.

    Never holds an API key: that is added to the environment at the moment of starting. `measures_memory`
    says that at its boot it takes for its own what it finds free of the GPU's memory; `after_others`, that it
    is started when those before it answer.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...] = ()
    measures_memory: bool = False
    after_others: bool = False

    def __str__(self) -> str:
        """One line to paste into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        return " ".join([*assignments, shlex.join(self.argv)])
