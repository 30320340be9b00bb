"""From options, checkpoint, vLLM release and machine to the command that serves them. Pure: no I/O."""

import json
import math
from pathlib import Path
from typing import Any

from qwen3_vllm._core.official_models import Role
from qwen3_vllm._core.prompts import DEFAULT_INSTRUCTION, embedding_query
from qwen3_vllm._core.releases import (
    CPU_SINGLE_PROCESS,
    FULL_CONTEXT,
    INPUT_TYPES,
    KV_CACHE_BYTES,
    QUANTIZATION_PLUGINS,
    RUNNER_FLAG,
    SCORE_TEMPLATE,
    V1_ONLY,
)
from qwen3_vllm.serving.command.memory import HALF_GPU, cache_bytes, cache_bytes_per_token, memory_share
from qwen3_vllm.serving.machine.vllm_build import PLUGINS
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.plan import Plan

DEFAULT_NAME: dict[Role, str] = {"embedding": "qwen3_embedding", "reranker": "qwen3_reranker"}
GUARD = "qwen3_vllm.serving.guard.ApiKeyGuard"
RERANKER_TEMPLATE = Path(__file__).parents[2] / "templates" / "qwen3_reranker.jinja"
RERANKER_OVERRIDES: dict[str, Any] = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}
# What Cohere's clients call a query and a document, in the format of this package's clients.
TASK_INSTRUCTIONS = {
    "search_query": embedding_query("", DEFAULT_INSTRUCTION),
    "search_document": "",
}
CORES_FOR_AN_API_SERVER = 4
# Twice the tokens that vLLM computes at once on an H100.
STEP_TOKENS = 16384


def build_command(plan: Plan) -> Command:
    """Build the command for this role, checkpoint, release and machine."""
    return _Builder(plan).build()


class _Builder:
    """Collects flags, environment and reasons; a user's own flag always silences ours."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.options, self.checkpoint = plan, plan.options, plan.checkpoint
        self.vllm, self.machine, self.vllm_args = plan.vllm, plan.machine, plan.vllm_args
        self.cpu = plan.on_cpu
        # The article this launcher follows was written for 0.10.0 on a GPU, with the V0 engine.
        self.v0 = self.vllm.version < RUNNER_FLAG and not self.cpu
        self.argv: list[str] = []
        self.notes: list[str] = []

    def build(self) -> Command:
        self._identity()
        self._model_kind()
        self._limits()
        self._throughput()
        if self.options.guarded:
            self.argv += ["--middleware", GUARD]
        argv = (*self.vllm.launcher, "serve", self.options.model, *self.argv, *self.vllm_args.rest)
        given = "--kv-cache-memory-bytes" in argv or self.vllm_args.has("--kv-cache-memory-bytes")
        measures = not (self.cpu or given)
        return Command(argv, self._environment(), tuple(self.notes), measures_memory=measures)

    def _add(self, flag: str, value: object = None) -> None:
        if self.vllm_args.has(flag):
            return
        if self.v0 and flag in ("--hf-overrides", "--served-model-name"):
            flag = "--" + flag[2:].replace("-", "_")
        self.argv += [flag] if value is None else [flag, str(value)]

    def _identity(self) -> None:
        options = self.options
        self._add("--host", options.host)
        self._add("--port", options.served_port)
        self._add("--served-model-name", options.served_model_name or DEFAULT_NAME[options.role])
        if not options.access_log:
            self._add("--disable-uvicorn-access-log")

    def _model_kind(self) -> None:
        """Say what the model is for, and what its config.json does not say."""
        options, checkpoint = self.options, self.checkpoint
        if self.vllm.version < RUNNER_FLAG:
            self._add("--task", "embed" if options.role == "embedding" else "score")
        else:
            self._add("--runner", "pooling")
        overrides: dict[str, Any] = {}
        if options.role == "embedding" and not checkpoint.is_matryoshka:
            overrides["is_matryoshka"] = True
            self.notes.append("is_matryoshka: without it the server refuses `dimensions`")
        if options.role == "embedding" and self.vllm.version >= INPUT_TYPES:
            # They replace what the server would read from the checkpoint, so that is kept.
            overrides["task_instructions"] = {**checkpoint.prompts, **TASK_INSTRUCTIONS}
            self.notes.append("task_instructions: without them /v2/embed refuses Cohere's input_type")
        if options.role == "reranker" and not checkpoint.is_converted_reranker:
            overrides = RERANKER_OVERRIDES
            self.notes.append("hf-overrides: an original Qwen3-Reranker, scored by its logits of no and yes")
        overrides = {**overrides, **self.vllm_args.hf_overrides}
        if overrides:
            self._add("--hf-overrides", json.dumps(overrides))
        if options.role == "reranker":
            self._template()
        if options.trust_remote_code:
            self._add("--trust-remote-code")
            self.notes.append("trust-remote-code: runs code from the checkpoint; Qwen3 needs none")
        if options.quantization:
            self._add("--quantization", options.quantization)
        elif checkpoint.quantization:
            self.notes.append(f"quantization: {checkpoint.quantization}, as the checkpoint says")
        plugin = PLUGINS.get(options.quantization or checkpoint.quantization or "")
        if plugin and self.vllm.version >= QUANTIZATION_PLUGINS and self.vllm.plugins is None:
            self.notes.append(f"quantization: vLLM {self.vllm.version} needs {plugin} there (pip)")
        if options.dtype != "auto":
            self._add("--dtype", options.dtype)

    def _template(self) -> None:
        if not self.options.chat_template:
            self.notes.append("chat-template: none; the client must send finished prompts")
        elif self.vllm.version < SCORE_TEMPLATE:
            self.notes.append(
                f"chat-template: /score of vLLM {self.vllm.version} ignores it; the client writes the prompt"
            )
        else:
            self._add("--chat-template", RERANKER_TEMPLATE)
            self.notes.append("chat-template: the server writes the rerank prompt, so raw pairs score right")

    def _limits(self) -> None:
        options = self.options
        self._add("--max-num-seqs", options.max_num_seqs)
        self._add("--max-model-len", self._context)
        if self._context > self.plan.longest_input and not self.vllm_args.has("--max-model-len"):
            self.notes.append(
                f"max-model-len: {self.plan.longest_input} and one more, since vLLM before {FULL_CONTEXT} "
                "may never answer an input that fills it"
            )
        if options.tensor_parallel_size > 1:
            self._add("--tensor-parallel-size", options.tensor_parallel_size)
        if options.data_parallel_size > 1:
            self._add("--data-parallel-size", options.data_parallel_size)
        if not self.cpu:
            self._memory_share()

    @property
    def _context(self) -> int:
        """Tokens of the longest input, and a spare one where that must not fill the context.

        Only where the checkpoint is known to have a position for it: vLLM refuses to start with more.
        """
        spare = self.vllm.version < FULL_CONTEXT and self.plan.longest_input < (
            self.checkpoint.max_position_embeddings or 0
        )
        return self.plan.longest_input + spare

    def _memory_share(self) -> None:
        share, count = memory_share(self.plan), self.plan.replicas
        if self.options.gpu_memory_utilization is None and count == 1:
            reason = (
                "half the GPU, so that the other server fits beside it"
                if share == HALF_GPU
                else "the weights need more than half of the GPU; nothing fits beside it"
            )
            self.notes.append(f"gpu-memory-utilization: {share}, {reason}")
        if count > 1:
            self._cache_of_a_replica()
            self.notes.append(f"gpu-memory-utilization: {share}, for all {count} servers together")
            share = math.floor(1000 * share / count) / 1000
        self._add("--gpu-memory-utilization", share)

    def _cache_of_a_replica(self) -> None:
        """Give each its cache in bytes: one that measures what is free must not start beside another."""
        size = cache_bytes(self.plan)
        if (
            size
            and self.vllm.version >= KV_CACHE_BYTES
            and not self.vllm_args.has("--gpu-memory-utilization")
        ):
            self._add("--kv-cache-memory-bytes", size)

    def _throughput(self) -> None:
        self._prefix_caching()
        if self.cpu:
            self._add("--enforce-eager")
            self.notes.append("enforce-eager: on a CPU compilation costs more at boot than it gives back")
        self._step_tokens()
        count = self.options.api_server_count or self._api_servers()
        # Not told, vLLM starts one for each copy of the model.
        if count > 1 or (self.options.api_server_count and self.options.data_parallel_size > 1):
            self._add("--api-server-count", count)

    def _step_tokens(self) -> None:
        """More tokens per step where the engine is the limit; elsewhere vLLM's own number stays.

        Measured for embeddings of a 0.6B model on an H100 (docs/benchmark.md). A larger model keeps the GPU
        busy with vLLM's number, and would make a query that comes in meanwhile wait longer.
        """
        if self.options.role != "embedding" or self.cpu or self.vllm.version < V1_ONLY:
            return
        if not (self.machine.has_h100s and self.plan.is_small):
            return
        own = ("--max-num-batched-tokens", "--enable-chunked-prefill", "--performance-mode", "--config")
        if not any(map(self.vllm_args.has, own)):
            tokens = min(STEP_TOKENS, self.options.max_num_seqs * self._context)
            self._add("--max-num-batched-tokens", tokens)
            self.notes.append(
                f"max-num-batched-tokens: {tokens}; with vLLM's own 8192 an H100 waits for the engine"
            )

    def _prefix_caching(self) -> None:
        wanted = self.options.prefix_caching
        if wanted is None and self.v0:
            return
        if wanted is None:
            wanted = self.options.role == "reranker"
            reason = (
                "on: all documents of a query share the prompt's head"
                if wanted
                else "off: looking for shared prefixes cost 8 to 22 % on distinct documents"
            )
            self.notes.append(f"prefix caching: {reason}")
        own = ("--enable-prefix-caching", "--no-enable-prefix-caching")
        if not any(map(self.vllm_args.has, own)):
            self.argv.append("--enable-prefix-caching" if wanted else "--no-enable-prefix-caching")

    def _api_servers(self) -> int:
        """Two for each copy of the model: tokenising, not the GPU, is the limit for short texts.

        Measured on one GPU (1.5 x the documents of one process) and on two (docs/deployment.md). Each needs
        some cores; where there are fewer, as many as fit, and one for each copy as vLLM itself has it.
        """
        if self.cpu or self.vllm.version < V1_ONLY or self.vllm_args.is_spread:
            return 1
        copies = self.options.data_parallel_size
        wanted, cores = 2 * copies, self.machine.cores
        if cores is None:
            why = f"assuming {CORES_FOR_AN_API_SERVER * wanted} cores or more"
            self.notes.append(f"api-server-count: {wanted} ({why}); one tokenises too slowly for the GPU")
            return wanted
        count = min(wanted, max(copies, cores // CORES_FOR_AN_API_SERVER))
        if count == wanted:
            why = f"{cores} cores"
            self.notes.append(f"api-server-count: {wanted} ({why}); one tokenises too slowly for the GPU")
        else:
            self.notes.append(
                f"api-server-count: {count}; {wanted}, two for each GPU's copy of the model, need "
                f"{CORES_FOR_AN_API_SERVER * wanted} cores, and there are {cores}"
            )
        return count

    def _environment(self) -> dict[str, str]:
        options = self.options
        env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if self.checkpoint.is_local:
            env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if options.api_key_file is not None:
            env["QWEN3_VLLM_API_KEY_FILE"] = str(options.api_key_file)
        if options.open_metrics:
            env["QWEN3_VLLM_OPEN_METRICS"] = "1"
        if self.plan.mps_folder is not None:
            env["CUDA_MPS_PIPE_DIRECTORY"] = str(self.plan.mps_folder)
            if self.plan.gives_way:
                env["CUDA_MPS_CLIENT_PRIORITY"] = "1"  # below normal
        if self.cpu:
            env["VLLM_CPU_KVCACHE_SPACE"] = str(self._cpu_cache_gib())
            single = options.data_parallel_size == 1 and (options.api_server_count or 1) == 1
            if single and self.vllm.version >= CPU_SINGLE_PROCESS:
                env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        if self.v0:
            env["VLLM_USE_V1"] = "0"
            self.notes.append("VLLM_USE_V1=0: the engine that pooling models were used with in 0.10.0")
        return env

    def _cpu_cache_gib(self) -> int:
        """Whole GiB (vLLM takes no fraction) for one full-length text and half as much again."""
        token = cache_bytes_per_token(self.plan)
        return max(1, math.ceil(1.5 * token * self._context / 2**30)) if token else 4
