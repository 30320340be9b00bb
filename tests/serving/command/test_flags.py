"""The command for every release: which flags it has, and what the checkpoint and the machine change."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from qwen3_vllm._core.releases import INPUT_TYPES, RUNNER_FLAG, SCORE_TEMPLATE, V1_ONLY
from qwen3_vllm.serving.command.flags import RERANKER_OVERRIDES, build_command
from qwen3_vllm.serving.command.memory import HALF_GPU
from qwen3_vllm.serving.machine.hardware import Gpu, Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Checkpoint, Command, ServeOptions
from qwen3_vllm.serving.plan import Plan
from tests.fake_vllm import RELEASES

WITH_RUNNER = [each for each in RELEASES if Version(each) >= RUNNER_FLAG]
WITH_V1 = [each for each in RELEASES if Version(each) >= V1_ONLY]
GPU_HOST = Machine(16, (Gpu("A10", 24 * 2**30),))
SMALL = Checkpoint(
    is_local=True,
    architectures=("Qwen3ForCausalLM",),
    attention_heads=16,
    key_value_heads=8,
    layers=28,
    head_dim=128,
    dtype="bfloat16",
    max_position_embeddings=32768,
    weights_bytes=int(1.2 * 2**30),
)
CONVERTED = Checkpoint(is_local=True, architectures=("Qwen3ForSequenceClassification",))


def command(
    role: Any,
    version: str,
    checkpoint: Checkpoint = SMALL,
    machine: Machine = GPU_HOST,
    cpu: bool = False,
    **options: Any,
) -> Command:
    serve = ServeOptions(role, "./models/M", **options)
    return build_command(Plan.of(serve, checkpoint, VllmBuild(Version(version), cpu), machine))


def value(built: Command, flag: str) -> str:
    """Return the one value of a flag."""
    assert built.argv.count(flag) == 1, built.argv
    return built.argv[built.argv.index(flag) + 1]


@pytest.mark.parametrize(
    ("role", "task", "port"), [("embedding", "embed", "8000"), ("reranker", "score", "8001")]
)
def test_on_0_10_0_with_a_gpu_it_is_the_articles_command(role: str, task: str, port: str) -> None:
    built = command(role, "0.10.0", trust_remote_code=True)
    assert "VLLM_USE_V1=0 vllm serve ./models/M " in str(built)
    assert value(built, "--task") == task
    assert value(built, "--port") == port
    assert "--trust-remote-code" in built.argv
    assert "--runner" not in built.argv
    if role == "reranker":
        assert value(built, "--served_model_name") == "qwen3_reranker"
        assert json.loads(value(built, "--hf_overrides")) == {
            "architectures": ["Qwen3ForSequenceClassification"],
            "classifier_from_token": ["no", "yes"],
            "is_original_qwen3_reranker": True,
        }


@pytest.mark.parametrize("version", WITH_RUNNER)
@pytest.mark.parametrize("role", ["embedding", "reranker"])
def test_later_releases_get_the_runner_and_never_the_task(role: str, version: str) -> None:
    built = command(role, version)
    assert value(built, "--runner") == "pooling"
    assert "--task" not in built.argv
    assert "VLLM_USE_V1" not in built.env


def test_the_cpu_build_of_0_10_0_keeps_its_only_engine() -> None:
    assert "VLLM_USE_V1" not in command("reranker", "0.10.0", cpu=True).env


@pytest.mark.parametrize("version", RELEASES)
def test_the_template_goes_where_score_applies_it(version: str) -> None:
    built = command("reranker", version)
    if Version(version) >= SCORE_TEMPLATE:
        assert Path(value(built, "--chat-template")).read_bytes().endswith(b"</think>\n\n\n")
    else:
        assert "--chat-template" not in built.argv
        assert any("ignores" in note for note in built.notes)


@pytest.mark.parametrize("version", RELEASES)
def test_a_template_can_be_left_out(version: str) -> None:
    assert "--chat-template" not in command("reranker", version, chat_template=False).argv


@pytest.mark.parametrize("version", WITH_RUNNER)
def test_only_original_rerankers_get_the_classifier_overrides(version: str) -> None:
    assert json.loads(value(command("reranker", version), "--hf-overrides")) == RERANKER_OVERRIDES
    assert "--hf-overrides" not in command("reranker", version, CONVERTED).argv


@pytest.mark.parametrize("version", WITH_RUNNER)
def test_embeddings_may_be_shortened_by_the_server(version: str) -> None:
    assert json.loads(value(command("embedding", version), "--hf-overrides"))["is_matryoshka"] is True
    declared = Checkpoint(is_local=True, is_matryoshka=True)
    assert "is_matryoshka" not in str(command("embedding", version, declared))


COHERES = {
    "search_query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
    "Query:",
    "search_document": "",
}


@pytest.mark.parametrize("version", RELEASES)
def test_coheres_input_types_are_known_where_the_release_takes_them(version: str) -> None:
    for role in ("embedding", "reranker"):
        sent = next((word for word in command(role, version).argv if "is_" in word), "{}")
        known = role == "embedding" and Version(version) >= INPUT_TYPES
        assert json.loads(sent).get("task_instructions") == (COHERES if known else None)


def test_input_types_of_the_checkpoint_and_of_the_user_stay() -> None:
    saved = Checkpoint(is_local=True, prompts={"query": "Q:", "document": ""})
    built = command("embedding", "0.33.0", saved)
    instructions = json.loads(value(built, "--hf-overrides"))["task_instructions"]
    assert instructions == {"query": "Q:", "document": "", **COHERES}
    own = ("--hf-overrides", '{"task_instructions": {"search_query": "mine"}}')
    sent = json.loads(value(command("embedding", "0.33.0", saved, extra_args=own), "--hf-overrides"))
    assert sent == {"is_matryoshka": True, "task_instructions": {"search_query": "mine"}}
    field = ("--hf-overrides.rope_theta", "5")
    sent = json.loads(value(command("embedding", "0.33.0", extra_args=field), "--hf-overrides"))
    assert sent == {"is_matryoshka": True, "task_instructions": COHERES, "rope_theta": 5}


@pytest.mark.parametrize("version", RELEASES)
def test_no_code_from_the_checkpoint_runs_unasked(version: str) -> None:
    assert "--trust-remote-code" not in command("embedding", version).argv


@pytest.mark.parametrize("version", RELEASES)
def test_it_listens_on_this_machine_only(version: str) -> None:
    assert value(command("embedding", version), "--host") == "127.0.0.1"


@pytest.mark.parametrize("version", RELEASES)
def test_no_line_is_logged_per_request_unless_asked(version: str) -> None:
    assert "--disable-uvicorn-access-log" in command("embedding", version).argv
    assert "--disable-uvicorn-access-log" not in command("embedding", version, access_log=True).argv
    own = ("--no-disable-uvicorn-access-log",)
    assert "--disable-uvicorn-access-log" not in command("embedding", version, extra_args=own).argv


@pytest.mark.parametrize("version", WITH_RUNNER)
def test_prefix_caching_serves_reranking_only(version: str) -> None:
    assert "--no-enable-prefix-caching" in command("embedding", version).argv
    assert "--enable-prefix-caching" in command("reranker", version).argv


@pytest.mark.parametrize("version", WITH_V1)
def test_two_api_servers_where_there_are_cores_for_them(version: str) -> None:
    built = command("embedding", version)
    assert value(built, "--api-server-count") == "2"
    assert any("api-server-count: 2 (16 cores)" in note for note in built.notes)


@pytest.mark.parametrize(
    ("version", "machine", "cpu"),
    [
        ("0.10.0", GPU_HOST, False),  # the V0 engine refuses more than one
        ("0.33.0", Machine(4, GPU_HOST.gpus), False),
        ("0.33.0", Machine(64, ()), True),
    ],
)
def test_one_api_server_elsewhere(version: str, machine: Machine, cpu: bool) -> None:
    assert "--api-server-count" not in command("embedding", version, machine=machine, cpu=cpu).argv


@pytest.mark.parametrize(
    ("copies", "cores", "count"),
    [(2, 16, 4), (2, 15, 3), (2, 8, 2), (2, 2, 2), (4, 32, 8), (4, 20, 5), (8, 64, 16), (2, None, 4)],
)
@pytest.mark.parametrize("given", ["option", "extra"])
def test_two_api_servers_for_each_copy_where_the_cores_allow(
    copies: int, cores: int | None, count: int, given: str
) -> None:
    ask: dict[str, Any] = (
        {"data_parallel_size": copies} if given == "option" else {"extra_args": ("-dp", f"{copies}")}
    )
    built = command("embedding", "0.33.0", machine=Machine(cores, None), **ask)
    assert value(built, "--api-server-count") == str(count)
    (note,) = [note for note in built.notes if note.startswith("api-server-count")]
    assert note.startswith(f"api-server-count: {count}")
    assert ("need" in note) is (count < 2 * copies)


def test_api_servers_are_left_to_who_balances_himself() -> None:
    built = command("embedding", "0.33.0", extra_args=("-dp", "8", "--data-parallel-rank", "0"))
    assert "--api-server-count" not in built.argv


@pytest.mark.parametrize(("count", "copies"), [(4, 1), (1, 2)])
def test_an_api_server_count_asked_for_is_sent(count: int, copies: int) -> None:
    built = command("embedding", "0.33.0", api_server_count=count, data_parallel_size=copies)
    assert value(built, "--api-server-count") == str(count)


H100_HOST = Machine(16, (Gpu("NVIDIA H100 80GB HBM3", 85520809984),))


@pytest.mark.parametrize("version", WITH_V1)
def test_a_small_model_on_an_h100_computes_more_tokens_a_step(version: str) -> None:
    built = command("embedding", version, machine=H100_HOST)
    assert value(built, "--max-num-batched-tokens") == "16384"
    assert any(note.startswith("max-num-batched-tokens: 16384;") for note in built.notes)


def test_on_a_hub_the_name_tells_the_size() -> None:
    def of_hub(model: str) -> str:
        options = ServeOptions("embedding", model)
        return str(build_command(Plan.of(options, Checkpoint(), VllmBuild(Version("0.33.0")), H100_HOST)))

    assert "--max-num-batched-tokens 16384" in of_hub("Qwen/Qwen3-Embedding-0.6B")
    assert "--max-num-batched-tokens" not in of_hub("Qwen/Qwen3-Embedding-8B")


def test_a_step_is_no_longer_than_all_sequences() -> None:
    built = command("embedding", "0.33.0", machine=H100_HOST, max_num_seqs=2, max_model_len=4096)
    assert value(built, "--max-num-batched-tokens") == "8192"


@pytest.mark.parametrize(
    ("role", "version", "changed", "machine"),
    [
        ("embedding", "0.33.0", {}, GPU_HOST),
        ("embedding", "0.33.0", {}, Machine(16, (Gpu("NVIDIA A100-SXM4-80GB", 80 * 2**30),))),
        ("embedding", "0.33.0", {}, Machine(16, (Gpu("NVIDIA B200", 180 * 2**30),))),
        ("embedding", "0.33.0", {}, Machine(20, (Gpu("NVIDIA GB10", 119 * 2**30),))),
        ("embedding", "0.33.0", {}, Machine(16, (Gpu("NVIDIA H100 80GB HBM3", 0),))),
        ("embedding", "0.33.0", {}, Machine(16, (*(H100_HOST.gpus or ()), *(GPU_HOST.gpus or ())))),
        ("embedding", "0.33.0", {}, Machine()),
        ("embedding", "0.33.0", {"weights_bytes": 8 * 2**30}, H100_HOST),
        ("embedding", "0.33.0", {"quantization": "awq"}, H100_HOST),
        ("embedding", "0.10.2", {}, H100_HOST),
        ("reranker", "0.33.0", {}, H100_HOST),
    ],
)
def test_elsewhere_the_tokens_a_step_are_vllms(
    role: str, version: str, changed: dict[str, Any], machine: Machine
) -> None:
    built = command(role, version, replace(SMALL, **changed), machine=machine)
    assert "max-num-batched-tokens" not in f"{built} {built.notes}"


@pytest.mark.parametrize(
    "given",
    [
        ("--max-num-batched-tokens", "4096"),
        ("--max_num_batched_tokens=4096",),
        ("--no-enable-chunked-prefill",),
        ("--config", "vllm.yaml"),
    ],
)
def test_tokens_a_step_of_ones_own_stay(given: tuple[str, ...]) -> None:
    built = command("embedding", "0.33.0", machine=H100_HOST, extra_args=given)
    assert "16384" not in f"{built} {built.notes}"
    assert str(built).endswith(" ".join(given))


def test_the_context_is_8192_or_what_the_checkpoint_has() -> None:
    assert value(command("embedding", "0.33.0"), "--max-model-len") == "8192"
    short = Checkpoint(is_local=True, max_position_embeddings=2048)
    assert value(command("embedding", "0.33.0", short), "--max-model-len") == "2048"
    assert value(command("embedding", "0.33.0", max_model_len=20000), "--max-model-len") == "20000"


@pytest.mark.parametrize("version", ["0.10.0", "0.31.0", "0.32.0"])
@pytest.mark.parametrize(
    ("asked", "positions", "spare"),
    [
        *((None, 32768, 1), (None, 8193, 1), (None, 8192, 0), (None, 2048, 0), (None, None, 0)),
        *((2000, 2048, 1), (2048, 2048, 0), (20000, 32768, 1), (4096, None, 0)),
    ],
)
def test_before_0_32_the_context_has_a_position_to_spare_if_the_checkpoint_has(
    asked: int | None, positions: int | None, spare: int, version: str
) -> None:
    spare = spare if version != "0.32.0" else 0
    longest = asked or min(8192, positions or 8192)
    built = command(
        "reranker",
        version,
        Checkpoint(is_local=True, max_position_embeddings=positions),
        max_model_len=asked,
    )

    assert value(built, "--max-model-len") == str(longest + spare)
    noted = f"max-model-len: {longest} and one more, since vLLM before 0.32.0"
    assert sum(note.startswith(noted) for note in built.notes) == spare


def test_a_context_of_ones_own_stays_as_it_is() -> None:
    built = command("embedding", "0.31.0", extra_args=("--max-model-len", "4096"))

    assert value(built, "--max-model-len") == "4096"
    assert "one more" not in "".join(built.notes)


def test_the_articles_options_are_sent() -> None:
    built = command(
        "embedding",
        "0.33.0",
        port=9000,
        tensor_parallel_size=2,
        data_parallel_size=2,
        max_num_seqs=64,
        gpu_memory_utilization=0.8,
        quantization="fp8",
        dtype="bfloat16",
        served_model_name="mine",
    )
    sent = {
        "--port": "9000",
        "--tensor-parallel-size": "2",
        "--data-parallel-size": "2",
        "--max-num-seqs": "64",
        "--gpu-memory-utilization": "0.8",
        "--quantization": "fp8",
        "--dtype": "bfloat16",
        "--served-model-name": "mine",
    }
    assert {flag: value(built, flag) for flag in sent} == sent


def test_two_servers_fit_on_one_gpu_by_default() -> None:
    assert float(value(command("embedding", "0.33.0"), "--gpu-memory-utilization")) == HALF_GPU


def test_a_model_that_needs_the_whole_gpu_gets_it() -> None:
    large = Checkpoint(is_local=True, weights_bytes=16 * 2**30)
    assert value(command("embedding", "0.33.0", large), "--gpu-memory-utilization") == "0.9"


def test_quantization_is_left_to_the_checkpoint_and_told() -> None:
    built = command("embedding", "0.33.0", Checkpoint(is_local=True, quantization="gptq"))
    assert "--quantization" not in built.argv
    assert any("gptq" in note for note in built.notes)


def test_a_cpu_server_boots_quickly_in_little_memory() -> None:
    built = command("embedding", "0.32.0", machine=Machine(2, ()), cpu=True)
    assert "--enforce-eager" in built.argv
    assert "--gpu-memory-utilization" not in built.argv
    # 28 layers x 8 heads x 128 x 2 (key, value) x 2 bytes x 8192 tokens = 0.875 GiB, half as much again.
    assert built.env["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert built.env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert not built.measures_memory


@pytest.mark.parametrize(("version", "single"), [("0.22.0", False), ("0.29.0", True)])
def test_the_cpu_engine_shares_a_process_where_it_can(version: str, single: bool) -> None:
    built = command("embedding", version, machine=Machine(2, ()), cpu=True)
    assert ("VLLM_ENABLE_V1_MULTIPROCESSING" in built.env) is single


def test_float32_doubles_the_cpu_cache() -> None:
    built = command("embedding", "0.32.0", machine=Machine(2, ()), cpu=True, dtype="float32")
    assert built.env["VLLM_CPU_KVCACHE_SPACE"] == "3"


def test_a_local_folder_asks_no_hub() -> None:
    assert command("embedding", "0.33.0").env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in command("embedding", "0.33.0", Checkpoint()).env


def test_a_key_brings_the_guard_and_is_not_in_the_command(tmp_path: Path) -> None:
    built = command("embedding", "0.33.0", api_key="hunter2")
    assert value(built, "--middleware") == "qwen3_vllm.serving.guard.ApiKeyGuard"
    assert "hunter2" not in str(built) + repr(built)
    assert "hunter2" not in repr(ServeOptions("embedding", "m", api_key="hunter2"))
    from_file = command("embedding", "0.33.0", api_key_file=tmp_path / "keys", open_metrics=True)
    assert from_file.env["QWEN3_VLLM_API_KEY_FILE"] == str(tmp_path / "keys")
    assert from_file.env["QWEN3_VLLM_OPEN_METRICS"] == "1"


def test_extra_arguments_come_last_and_silence_ours() -> None:
    built = command(
        "embedding", "0.33.0", extra_args=("--max_num_seqs=8", "--enable-prefix-caching", "--seed", "1")
    )
    assert built.argv[-4:] == ("--max_num_seqs=8", "--enable-prefix-caching", "--seed", "1")
    assert "--max-num-seqs" not in built.argv
    assert "--no-enable-prefix-caching" not in built.argv


@pytest.mark.parametrize(
    "extra",
    [
        ("--hf-overrides", '{"rope_theta": 5}'),
        ('--hf_overrides={"rope_theta": 5}',),
        ('--hf-over={"rope_theta": 5}',),
        ("--hf-overrides.rope_theta", "5"),
        ("--hf_o.rope_theta=5",),
    ],
)
def test_own_overrides_join_ours(extra: tuple[str, ...]) -> None:
    built = command("reranker", "0.33.0", extra_args=extra)
    assert json.loads(value(built, "--hf-overrides")) == {**RERANKER_OVERRIDES, "rope_theta": 5}


def test_fields_of_overrides_join_into_one_object() -> None:
    fields = ("--hf-overrides.a.b=1.5k", "--hf-overrides.a.c", "text", "--hf-overrides.e=" + "9" * 400 + "k")
    built = command(
        "reranker",
        "0.33.0",
        extra_args=(*fields, "--hf-overrides.d+=x,y", "--hf-overrides.d+=z", "--seed", "1"),
    )
    added = {"a": {"b": 1500, "c": "text"}, "d": ["x", "y", "z"], "e": "9" * 400 + "k"}
    assert json.loads(value(built, "--hf-overrides")) == {**RERANKER_OVERRIDES, **added}
    assert built.argv[-2:] == ("--seed", "1")


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        (("--max-num-s", "8"), "--max-num-seqs"),
        (("--max-model=4K",), "--max-model-len"),
        (("--chat_templ", "x.jinja"), "--chat-template"),
        (("--serv", "mine"), "--served-model-name"),
        (("-tp=2",), "--tensor-parallel-size"),
        (("-t", "2"), "--tensor-parallel-size"),
        (("--no-enable-prefix",), "--enable-prefix-caching"),
        (("--device-mem", "0.3"), "--gpu-memory-utilization"),
    ],
)
def test_a_shortened_flag_silences_ours(given: tuple[str, ...], ours: str) -> None:
    built = command("reranker", "0.33.0", tensor_parallel_size=4, extra_args=given)
    assert ours not in built.argv
    assert built.argv[-len(given) :] == given


def test_the_command_can_be_pasted() -> None:
    built = command("reranker", "0.33.0")
    words = shlex.split(str(built))
    assert words[len(built.env) :] == list(built.argv)
    assert dict(word.split("=", 1) for word in words[: len(built.env)]) == built.env
