"""Stages and causes of death, from lines that vLLM prints."""

import pytest

from qwen3_vllm.serving.process.bootlog import cause_of_death, stage_of

ENGINE = (
    "(EngineCore pid=1) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m'\n"
)
LOADING = "(EngineCore pid=1) INFO [cpu_model_runner.py:68] Starting to load model m...\n"
EAGER = "WARNING [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs\n"


@pytest.mark.parametrize(
    ("log", "stage"),
    [
        ("", "importing vLLM"),
        (EAGER, "importing vLLM"),
        (ENGINE + EAGER, "starting the engine"),
        (ENGINE + EAGER + LOADING, "loading weights"),
        (ENGINE + LOADING + "Dynamo bytecode transform time: 3.2 s\n", "compiling"),
        (ENGINE + LOADING + "Capturing CUDA graphs: 10%\n", "warming up"),
        (ENGINE + LOADING + "INFO [entry.py:140] Starting vLLM server on http://…\n", "opening the port"),
    ],
)
def test_the_furthest_stage_is_shown(log: str, stage: str) -> None:
    assert stage_of(log) == stage


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("OSError: [Errno 98] Address already in use", "port"),
        ("[Errno 98] error while attempting to bind on address: address already in use", "port"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB", "out of memory"),
        (
            "ValueError: Free memory on device cuda:0 (1.2/22 GiB) on startup is less than desired",
            "out of memory",
        ),
        ("ValueError: No available memory for the cache blocks.", "out of memory"),
        (
            "ValueError: There is no module or parameter named 'lm_head.g_idx' in Qwen3ForSequence",
            "lm_head is quantised",
        ),
        ("RuntimeError: No CUDA GPUs are available", "CUDA"),
        ("RuntimeError: Failed to infer device type", "CUDA"),
        ("ImportError: libcuda.so.1: cannot open shared object file", "CUDA"),
        ("api_server.py: error: unrecognized arguments: --task embed", "flag"),
        ("ValueError: Model architectures ['Foo'] are not supported for now.", "architecture"),
        ("RuntimeError: operator torchvision::nms does not exist", "torchvision"),
        ("RuntimeError: no API key: set VLLM_API_KEY, or …", "API key"),
    ],
)
def test_the_usual_causes_are_named(line: str, word: str) -> None:
    assert word in cause_of_death(ENGINE + line, 1)


@pytest.mark.parametrize(("status", "words"), [(-9, "memory"), (-11, "signal 11"), (3, "status 3")])
def test_other_ends_are_described(status: int, words: str) -> None:
    assert words in cause_of_death(ENGINE, status)
