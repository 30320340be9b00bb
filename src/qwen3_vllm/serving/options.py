"""What goes into a server's command line, and the command that comes out. Plain data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qwen3_vllm._core.official_models import Role

Device = Literal["auto", "cuda", "cpu"]

DEFAULT_PORT: dict[Role, int] = {"embedding": 8000, "reranker": 8001}


@dataclass(frozen=True)
class ServeOptions:
    """What the user asked for; None means that the launcher chooses, and says what and why.

    `model` is a folder or a hub id. `port` 0 takes a free one. `gpu_memory_utilization` is this server's
    share of its GPU, 0 to 1. `api_key` reaches the server by environment only; `api_key_file` holds one
    key a line. `access_log`: one line per request. `extra_args` go to vLLM as they are and win over
    what the launcher would send.
    """

    role: Role
    model: str
    port: int | None = None
    host: str = "127.0.0.1"
    served_model_name: str | None = None
    dtype: str = "auto"
    device: Device = "auto"
    quantization: str | None = None
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    api_server_count: int | None = None
    max_num_seqs: int = 256
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    trust_remote_code: bool = False
    chat_template: bool = True
    prefix_caching: bool | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    open_metrics: bool = False
    access_log: bool = False
    insecure: bool = False
    extra_args: tuple[str, ...] = ()

    @property
    def guarded(self) -> bool:
        return self.api_key is not None or self.api_key_file is not None

    @property
    def served_port(self) -> int:
        return DEFAULT_PORT[self.role] if self.port is None else self.port


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

    Never holds an API key: that is added to the environment at the moment of starting. `uses_gpu` says that
    it takes a share of a GPU's memory, which other servers then see as taken.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...] = ()
    uses_gpu: bool = False

    def __str__(self) -> str:
        """One line to paste into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        return " ".join([*assignments, shlex.join(self.argv)])
