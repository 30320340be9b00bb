"""A LoRA adapter that vLLM serves beside its base model: named like a model, with its own vectors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.serving import ServeOptions

from .conftest import Boot, RunningServer
from .reference import ReferenceEmbedding

RANK, ALPHA = 4, 8
TOLERANCE = 1e-4
TEXTS = ["法国的首都是巴黎。", "Berlin is the capital of Germany."]
LONG = "巴黎是法国的首都。" * 500  # more than the base model's 2,048 tokens


def write_adapter(base: Path, adapter: Path, merged: Path) -> None:
    """Write an adapter of the attention in PEFT's format, and the base model with it merged in."""
    shutil.copytree(base, merged)
    adapter.mkdir()
    weights = load_file(base / "model.safetensors")
    generator = np.random.default_rng(1)
    factors: dict[str, NDArray[np.float32]] = {}
    for name in [name for name in weights if name.endswith(("q_proj.weight", "v_proj.weight"))]:
        rows, columns = weights[name].shape
        down, up = (
            generator.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
            for shape in ((RANK, columns), (rows, RANK))
        )
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        weights[name] = weights[name] + up @ down * (ALPHA / RANK)
    save_file(factors, adapter / "adapter_model.safetensors")
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Path:
    folder: Path = tmp_path_factory.mktemp("lora")
    write_adapter(checkpoints / "Qwen3-Embedding-random", folder / "adapter", folder / "merged")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, checkpoints: Path, boot_for_module: Boot) -> RunningServer:
    arguments = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"finetuned={folder / 'adapter'}")
    base = str(checkpoints / "Qwen3-Embedding-random")
    return boot_for_module(ServeOptions("embedding", base, port=0, dtype="float32", extra_args=arguments))[0]


def test_an_adapter_has_its_own_vectors_and_the_context_of_its_base_model(
    server: RunningServer, folder: Path, embedding_reference: ReferenceEmbedding
) -> None:
    texts = [*TEXTS, LONG]
    tuned, base = (EmbeddingClient(base_url=server.base_url, model=name) for name in ("finetuned", None))

    expected = ReferenceEmbedding(folder / "merged").documents(texts)

    np.testing.assert_allclose(tuned.embed_documents(texts), expected, atol=TOLERANCE)
    np.testing.assert_allclose(
        base.embed_documents(texts), embedding_reference.documents(texts), atol=TOLERANCE
    )
    assert np.abs(tuned.embed_documents(texts) - base.embed_documents(texts)).max() > 0.01
