"""What changed in which release of vLLM; no other module holds a release number to compare with.

Each name is the first release with a behaviour. Its comment says what was before, and in brackets where in
vLLM that can be checked. docs/new-vllm-release.md says how to add one.
"""

from packaging.version import Version

# Compared with by the launcher and by `doctor`.

# Qwen3 rerankers load since 0.9.2 (model_executor/models/config.py); older request formats are not tested.
OLDEST = Version("0.10.0")
# `--runner pooling` instead of `--task`, which is gone from 0.13.0 (engine/arg_utils.py).
RUNNER_FLAG = Version("0.10.1")
# `--kv-cache-memory-bytes`: the cache's size without measuring what is free (engine/arg_utils.py).
KV_CACHE_BYTES = Version("0.10.2")
# No V0 engine, to which older ones may fall back: it refuses API servers, and steps shorter than the longest
# input (engine/arg_utils.py).
V1_ONLY = Version("0.11.0")
# Stops at VLLM_USE_V1=0; older ones heed it, newer ones ignore it (envs.py).
V0_REFUSED = Version("0.11.0")
# `--chat-template` reaches /score; silently ignored before (entrypoints/score_utils.py).
SCORE_TEMPLATE = Version("0.14.0")
# /v2/embed, and `task_instructions` of the configuration for its input_type (entrypoints/pooling/embed).
INPUT_TYPES = Version("0.18.0")
# The CPU worker may live in the API server: half the boot time (VLLM_ENABLE_V1_MULTIPROCESSING in
# v1/engine/llm_engine.py).
CPU_SINGLE_PROCESS = Version("0.23.0")
# bitsandbytes and GGUF are read by plugins only (model_executor/layers/quantization).
QUANTIZATION_PLUGINS = Version("0.28.0")
# Pooling inputs of exactly `--max-model-len` tokens are answered; before, one may wait for ever (vllm#29496,
# #55427). The refusal of longer ones has other words from here, by which clients know the server.
FULL_CONTEXT = Version("0.32.0")

# The clients compare no release, since /version may be a gateway's own: they try, and remember what was
# refused. These are the differences they meet; the tests' fake server has them.

# Errors are {"error": {…}}; flat before (entrypoints/openai/protocol.py).
NESTED_ERRORS = Version("0.10.1")
# `embed_dtype` is heeded; silently ignored before (utils/serial_utils.py).
EMBED_DTYPE = Version("0.11.1")
# `encoding_format` "bytes_only": vectors alone, without JSON; refused before (utils/serial_utils.py).
BYTES_ONLY = Version("0.13.0")
# /classify takes token ids; refused before (entrypoints/pooling/classify).
CLASSIFY_TOKENS = Version("0.15.0")
# /score takes empty texts, and a route that the model lacks is 404; both 400 before (entrypoints/pooling).
EMPTY_TEXTS = NO_SUCH_ROUTE = Version("0.16.0")
# /score passes `instruction` on to the chat template; silently ignored before (entrypoints/pooling/scoring).
SCORE_INSTRUCTION = Version("0.22.0")
