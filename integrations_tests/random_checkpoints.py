"""Write a small Qwen3-Embedding and a small Qwen3-Reranker checkpoint with random weights.

    python -m integrations_tests.random_checkpoints DIR

They have the real architecture, the real tokenizer and file layout, so a server treats them like the real
ones; their scores mean nothing, but move with every byte of a prompt, which is what a parity test wants.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demo import qwen3_tokenizer

EMBEDDING = "Qwen3-Embedding-random"
RERANKER = "Qwen3-Reranker-random"

VOCAB_SIZE = 151_669
HIDDEN_SIZE = 128
INTERMEDIATE_SIZE = 384
LAYERS = 3
HEADS, KEY_VALUE_HEADS, HEAD_DIM = 4, 2, 32
# Ten times Qwen3's own: near 0.02 a random model answers 0.5 to everything, and a parity test sees nothing.
INITIALIZER_RANGE = 0.3
SEED = 20260101

RECIPE_FILE = ".recipe"

Weights = dict[str, npt.NDArray[np.float32]]


def model_config(*, end_token: str) -> dict[str, Any]:
    """Return config.json in the form of Qwen's own checkpoints, which every transformers since 4.51 reads."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": qwen3_tokenizer.TOKEN_IDS["<|endoftext|>"],
        "eos_token_id": qwen3_tokenizer.TOKEN_IDS[end_token],
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN_SIZE,
        "initializer_range": INITIALIZER_RANGE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "max_position_embeddings": 2048,
        "max_window_layers": LAYERS,
        "model_type": "qwen3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1_000_000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.51.3",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB_SIZE,
    }


def random_weights(seed: int) -> Weights:
    """Return the parameters of Qwen3ForCausalLM with tied embeddings: matrices normal, norms one."""
    generator = np.random.default_rng(seed)

    def normal(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return generator.standard_normal((rows, columns), dtype=np.float32) * np.float32(INITIALIZER_RANGE)

    query_size, key_value_size = HEADS * HEAD_DIM, KEY_VALUE_HEADS * HEAD_DIM
    weights = {
        "model.embed_tokens.weight": normal(VOCAB_SIZE, HIDDEN_SIZE),
        "model.norm.weight": np.ones(HIDDEN_SIZE, np.float32),
    }
    for layer in range(LAYERS):
        of_layer = {
            "self_attn.q_proj": normal(query_size, HIDDEN_SIZE),
            "self_attn.k_proj": normal(key_value_size, HIDDEN_SIZE),
            "self_attn.v_proj": normal(key_value_size, HIDDEN_SIZE),
            "self_attn.o_proj": normal(HIDDEN_SIZE, query_size),
            "self_attn.q_norm": np.ones(HEAD_DIM, np.float32),
            "self_attn.k_norm": np.ones(HEAD_DIM, np.float32),
            "mlp.gate_proj": normal(INTERMEDIATE_SIZE, HIDDEN_SIZE),
            "mlp.up_proj": normal(INTERMEDIATE_SIZE, HIDDEN_SIZE),
            "mlp.down_proj": normal(HIDDEN_SIZE, INTERMEDIATE_SIZE),
            "input_layernorm": np.ones(HIDDEN_SIZE, np.float32),
            "post_attention_layernorm": np.ones(HIDDEN_SIZE, np.float32),
        }
        weights |= {f"model.layers.{layer}.{name}.weight": value for name, value in of_layer.items()}
    return weights


def write_checkpoint(folder: Path, weights: Weights, *, embedding: bool) -> None:
    """Write one checkpoint into an empty folder."""
    from safetensors.numpy import save_file

    config = model_config(end_token="<|endoftext|>" if embedding else "<|im_end|>")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    qwen3_tokenizer.write(folder, appends_end_token=embedding)
    weights_file = folder / "model.safetensors"
    save_file(weights, weights_file, metadata={"format": "pt"})
    weights_file.chmod(0o644)  # safetensors leaves it to the owner alone; a container's user must read it


def recipe() -> str:
    """Return a digest of the code that makes the checkpoints: it changes when they would."""
    sources = (Path(__file__), Path(qwen3_tokenizer.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def is_current(folder: Path) -> bool:
    """Whether the folder holds what this code would write."""
    stamp = folder / RECIPE_FILE
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe()


def make(directory: Path) -> tuple[Path, Path]:
    """Make the checkpoints that are missing or made by an older recipe.

    A checkpoint is written beside its place and renamed into it, so a folder of that name is always whole.

    Returns:
        The folders of the embedding model and of the reranker.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate((EMBEDDING, RERANKER), start=SEED):
        target = directory / name
        if is_current(target):
            print(f"{target}: already made")
            continue
        print(f"{target}: writing random weights and Qwen3's tokenizer", flush=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=f".{name}-") as temporary:
            unfinished = Path(temporary) / name
            unfinished.mkdir()
            write_checkpoint(unfinished, random_weights(seed), embedding=name == EMBEDDING)
            (unfinished / RECIPE_FILE).write_text(recipe(), encoding="utf-8")
            if target.exists():
                shutil.rmtree(target)
            unfinished.rename(target)
    return directory / EMBEDDING, directory / RERANKER


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder to hold both checkpoints")
    try:
        make(parser.parse_args().directory)
    except OSError as error:
        sys.exit(f"cannot write the checkpoints: {error}")


if __name__ == "__main__":
    main()
