"""All that a server's command depends on, read once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.config_file import with_config_file
from qwen3_vllm.serving.guard import read_keys
from qwen3_vllm.serving.machine.checkpoint import read_checkpoint
from qwen3_vllm.serving.machine.hardware import Machine, this_machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild, installed_vllm
from qwen3_vllm.serving.options import Checkpoint, ServeOptions
from qwen3_vllm.serving.vllm_args import VllmArgs, heeding

# Of a model of 0.6B parameters: 1.2 GB, or 2.4 in float32. The engine's process is its limit, not the GPU.
SMALL_MODEL_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Plan:
    """What the modules of `serving.command` decide from; none of them reads anything itself.

    `options` heed what `vllm_args` say. `environment` is the user's, empty where the command is for another
    machine. `keys` are those that the server will take, the first of them ours. `replicas` servers of this
    plan share the memory that its options give to one. `mps_folder` is that of the MPS daemon through which
    they use the GPU; those that serve bulk give way there (`gives_way`).
    """

    options: ServeOptions
    vllm_args: VllmArgs
    checkpoint: Checkpoint
    vllm: VllmBuild
    machine: Machine
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)
    replicas: int = 1
    gives_way: bool = False
    mps_folder: Path | None = None

    @classmethod
    def of(cls, options: ServeOptions, checkpoint: Checkpoint, vllm: VllmBuild, machine: Machine) -> Self:
        """Make a plan of what is known, without looking at this machine.

        Raises:
            LaunchError: The arguments for vLLM cannot be understood.
        """
        arguments = VllmArgs(options.extra_args)
        return cls(heeding(options, arguments), arguments, checkpoint, vllm, machine)

    @property
    def on_cpu(self) -> bool:
        """Whether the server will compute on the CPU: asked for, built for it, or no GPU to be seen."""
        if self.options.device != "auto":
            return self.options.device == "cpu"
        return self.vllm.is_cpu_build or (self.machine.gpus is not None and not self.machine.gpus)

    @property
    def is_small(self) -> bool:
        """Whether the model is one of about 0.6B parameters; on a hub its name tells."""
        size = self.checkpoint.weights_bytes
        if not size:
            return "0.6b" in self.options.model.lower()
        return size <= SMALL_MODEL_BYTES and not self.checkpoint.quantization

    @property
    def longest_input(self) -> int:
        """Tokens of the longest text."""
        return self.options.max_model_len or min(8192, self.checkpoint.max_position_embeddings or 8192)

    @property
    def base_url(self) -> str:
        """The address to reach the server from this machine, without a path."""
        options = self.options
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(options.host, options.host)
        scheme = "https" if self.vllm_args.has("--ssl-certfile") else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.served_port}"

    def changed(self, **options: str | int | float | None) -> Self:
        """Return the plan with other values for some options."""
        return replace(self, options=replace(self.options, **options))  # type: ignore[arg-type]


def read_plans(
    options: Sequence[ServeOptions], *, vllm: VllmBuild | None = None, machine: Machine | None = None
) -> list[Plan]:
    """Read the plans of servers that start together; starts nothing.

    Give `vllm` and `machine` to plan for another machine.

    Raises:
        LaunchError: A checkpoint, a configuration file or the keys cannot be read, or there is no vLLM.
    """
    elsewhere = machine is not None
    completed = [_complete(each, elsewhere=elsewhere) for each in options]
    vllm, machine = vllm or installed_vllm(), machine or this_machine()
    return [
        replace(
            Plan.of(each, _read(each, elsewhere=elsewhere), vllm, machine),
            environment={} if elsewhere else dict(os.environ),
            keys=keys,
        )
        for each, keys in completed
    ]


def _complete(options: ServeOptions, *, elsewhere: bool) -> tuple[ServeOptions, tuple[str, ...]]:
    """Take in what a file for vLLM says, and the keys, from the environment where none is given."""
    options = replace(options, extra_args=with_config_file(options.extra_args, elsewhere=elsewhere))
    if not options.guarded:
        file_name = os.environ.get("QWEN3_VLLM_API_KEY_FILE")
        key = os.environ.get("VLLM_API_KEY", "").strip()
        options = replace(
            options,
            api_key_file=Path(file_name) if file_name else None,
            api_key=(not file_name and key) or None,
        )
    if options.api_key_file is not None:
        options = replace(options, api_key_file=options.api_key_file.expanduser().absolute(), api_key=None)
    return options, _keys(options) if options.guarded else ()


def _keys(options: ServeOptions) -> tuple[str, ...]:
    """Return the keys as the guard will read them."""
    named = {"VLLM_API_KEY": options.api_key or ""}
    if options.api_key_file is not None:
        named = {"QWEN3_VLLM_API_KEY_FILE": str(options.api_key_file)}
    try:
        keys = read_keys(named)
    except RuntimeError as error:
        raise LaunchError(str(error)) from error
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise LaunchError("an API key must be printable ASCII without spaces: it travels in a header")
    return tuple(keys)


def _read(options: ServeOptions, *, elsewhere: bool) -> Checkpoint:
    """Read the checkpoint; for another machine a folder that is not here is taken on trust."""
    if elsewhere and not Path(options.model).is_dir():
        return replace(read_checkpoint(options.model), is_local=options.model.startswith((".", "/", "~")))
    return read_checkpoint(options.model)
