"""A reranker that an example fine-tuned or quantised is served, and measured beside its original."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.evaluation import Evaluation, evaluate
from qwen3_vllm.serving import ServeOptions

from .conftest import ROOT, Boot, RunningServer, environment
from .reference import ReferenceReranker

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]  # installs what trains and what quantises

MODELS = ROOT / "demo" / "models"
RERANKER = MODELS / "Qwen3-Reranker-demo"
# Compares the prompts that are trained on with those that the clients send.
COMPARE = """
import sys
sys.path.insert(0, "examples")
from pathlib import Path
import finetune_reranker as example
from qwen3_vllm._core import prompts

task = "Find it"
pairs = [
    ("为什么天是蓝的？", "瑞利散射。"),
    ("  spaces \\n", "\\n\\n a line\\n"),
    ("Who?", "<|im_end|>\\n<|im_start|>assistant <think> </think> <|endoftext|> <tool_call> <|unknown|>"),
    ("<|im_start|>", ""),
]
model = example.load(Path(sys.argv[1]), task, 1024)
columns = [example.plain(model, list(column)) for column in zip(*pairs)]
trained = model.preprocess(list(zip(*columns)))
for (query, document), ids, mask in zip(pairs, trained["input_ids"], trained["attention_mask"]):
    sent = model.tokenizer(prompts.rerank_prompt(query, document, task))["input_ids"]
    assert ids[mask.bool()].tolist() == sent, (query, document)
(cut,) = model.preprocess([("Who?", "word " * 3000)])["input_ids"].tolist()
suffix = model.tokenizer(prompts.RERANK_SUFFIX)["input_ids"]
assert len(cut) == 1024 and cut[-len(suffix) :] == suffix
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docstrings")
    counts = ["--train", "40", "--test", "20"]
    run([sys.executable, "-m", "demo.docstrings", str(folder), *counts])
    return folder


@pytest.fixture(scope="module")
def served(boot_for_module: Boot) -> list[RunningServer]:
    return boot_for_module(
        ServeOptions("embedding", str(MODELS / "Qwen3-Embedding-demo"), port=0, dtype="float32"),
        ServeOptions("reranker", str(RERANKER), port=0, dtype="float32"),
    )


@pytest.fixture(scope="module")
def quantiser(tmp_path_factory: pytest.TempPathFactory) -> str:
    return environment(tmp_path_factory.mktemp("quantiser"), "llmcompressor")


def run(command: list[str], **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", **variables},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def example(python: str, name: str, served: list[RunningServer], *arguments: str) -> str:
    command = [python, str(ROOT / "examples" / name), *arguments]
    embedding, reranker = (server.base_url for server in served)
    return run(command, QWEN3_EMBEDDING_URL=embedding, QWEN3_RERANKER_URL=reranker)


def measured(data: Path, served: list[RunningServer], after: RunningServer) -> Evaluation:
    """Set-ups 1 and 2: reranked by the original, and by the new one."""
    embedding, before = served
    return evaluate(
        data,
        embeddings=EmbeddingClient(base_url=embedding.base_url),
        rerankers={
            "before": RerankClient(base_url=before.base_url),
            "after": RerankClient(base_url=after.base_url),
        },
        candidates=[5],
    )


def test_training_and_serving_see_the_same_tokens_and_the_result_is_served(
    data: Path, served: list[RunningServer], boot_for_module: Boot, tmp_path: Path
) -> None:
    packages = ("sentence-transformers>=6", "peft", "datasets", "accelerate")
    python = environment(tmp_path / "environment", *packages)
    run([python, "-c", COMPARE, str(RERANKER)])
    out = tmp_path / "Qwen3-Reranker-tuned"
    arguments = (str(data), str(RERANKER), str(out), "--steps", "20", "--rate", "1e-3")

    printed = example(python, "finetune_reranker.py", served, *arguments)

    assert "Scores here and at the server differ by 0.00" in printed
    (after,) = boot_for_module(ServeOptions("reranker", str(out), port=0, dtype="float32"))
    query, documents = (
        "Return the last part of a path.",
        ["os.path.basename\nThe part after the slash.", "No"],
    )
    scores = RerankClient(base_url=after.base_url).score(query, documents)
    np.testing.assert_allclose(scores, ReferenceReranker(out).scores(query, documents), atol=1e-4)
    assert np.abs(scores - ReferenceReranker(RERANKER).scores(query, documents)).max() > 1e-3
    assert len(measured(data, served, after).measured) == 2


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_int4_is_served_and_stays_close(
    method: str,
    quantiser: str,
    data: Path,
    served: list[RunningServer],
    boot_for_module: Boot,
    tmp_path: Path,
) -> None:
    out = tmp_path / f"Qwen3-Reranker-{method}"
    arguments = ("reranker", str(RERANKER), str(data), str(out), "--method", method, "--group-size", "32")

    example(quantiser, "quantise.py", served, *arguments)

    (after,) = boot_for_module(ServeOptions("reranker", str(out), port=0))
    before, quantised = measured(data, served, after).measured
    assert abs(before.metrics["nDCG@10"].value - quantised.metrics["nDCG@10"].value) < 0.1
