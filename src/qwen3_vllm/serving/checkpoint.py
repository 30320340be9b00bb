"""Find a model's folder and read what it says about itself, without loading a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import LaunchError
from .options import Checkpoint, Role

HUB_MODELS: dict[Role, str] = {
    "embedding": "Qwen/Qwen3-Embedding-0.6B",
    "reranker": "Qwen/Qwen3-Reranker-0.6B",
}


def resolve_model(model: str | None, role: Role, models_dir: Path, *, elsewhere: bool = False) -> str:
    """Turn what the user wrote into a folder or a hub id.

    A folder is taken as it is; a name or hub id whose last part is a folder of `models_dir` is that folder;
    None is the official 0.6B model there, else the only folder named for the role. `elsewhere`: the command
    is for another machine, so folders that are not here are taken on trust.

    Raises:
        LaunchError: A path that is no folder, or None with several candidates or none.
    """
    if model is None:
        return _only_model(role, models_dir, elsewhere)
    given = Path(model).expanduser()
    if given.is_dir():
        return str(given) if model.startswith("~") else model
    inside = models_dir / given.name
    is_path = model.startswith((".", "/", "~"))
    if not is_path and inside.is_dir():
        return _as_path(inside)
    is_hub_id = model.count("/") == 1 and not is_path and not given.parent.exists()
    if is_hub_id or elsewhere:
        return model
    raise LaunchError(f"no model folder {model}, nor {inside}. Give a folder, or --models-dir with it inside")


def _only_model(role: Role, models_dir: Path, elsewhere: bool) -> str:
    official = models_dir / Path(HUB_MODELS[role]).name
    if official.is_dir() or elsewhere:
        return _as_path(official)
    folders = sorted(path.parent for path in models_dir.glob("*/config.json"))
    found = [folder for folder in folders if _role_of_name(folder) == role]
    if len(found) == 1:
        return _as_path(found[0])
    if found:
        names = ", ".join(folder.name for folder in found)
        raise LaunchError(f"{models_dir} has several {role} models: {names}. Name one of them")
    raise LaunchError(
        f"no {role} model in {models_dir}. Download one (qwen3-vllm download {role}), give its folder, "
        f"or the hub id {HUB_MODELS[role]} to let vLLM download it"
    )


def _as_path(folder: Path) -> str:
    """Write a relative folder with ./ before it: two bare words look like a hub id to vLLM."""
    return str(folder) if folder.is_absolute() else f"./{folder}"


def read_checkpoint(model: str) -> Checkpoint:
    """Read the facts that decide flags. A hub id that is not on disk yields what its name tells.

    Raises:
        LaunchError: A folder without a readable config.json.
    """
    folder = Path(model)
    if not folder.is_dir():
        converted = "seq-cls" in model.lower() or "sequenceclassification" in model.lower()
        architectures = ("Qwen3ForSequenceClassification",) if converted else ()
        return Checkpoint(architectures=architectures, role=_role_of_name(folder))
    config = _read_json(folder / "config.json")
    if config is None:
        nested = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        hint = f" It has models inside: {', '.join(nested)}" if nested else ""
        raise LaunchError(f"{folder} has no config.json: no model folder, or half a download.{hint}")
    return _from_config(folder, config)


def _from_config(folder: Path, config: dict[str, Any]) -> Checkpoint:
    architectures = tuple(config.get("architectures") or ())
    heads = config.get("num_attention_heads") or 0
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    quantization = config.get("quantization_config") or {}
    return Checkpoint(
        is_local=True,
        architectures=architectures,
        role=_role_of_folder(folder, architectures),
        attention_heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        layers=config.get("num_hidden_layers") or 0,
        head_dim=config.get("head_dim") or (config.get("hidden_size", 0) // heads if heads else 0),
        dtype=config.get("dtype") or config.get("torch_dtype"),
        max_position_embeddings=config.get("max_position_embeddings"),
        has_rope_scaling=rope.get("rope_type", rope.get("type", "default")) != "default",
        quantization=quantization.get("quant_method"),
        is_matryoshka=bool(config.get("is_matryoshka") or config.get("matryoshka_dimensions")),
        weights_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    )


def _role_of_folder(folder: Path, architectures: tuple[str, ...]) -> Role | None:
    """Both models call themselves Qwen3ForCausalLM; what surrounds config.json tells them apart."""
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return "reranker"
    declared = (_read_json(folder / "config_sentence_transformers.json") or {}).get("model_type")
    if declared == "CrossEncoder":
        return "reranker"
    if declared == "SentenceTransformer" or (folder / "1_Pooling").is_dir():
        return "embedding"
    return _role_of_name(folder)


def _role_of_name(folder: Path) -> Role | None:
    name = folder.name.lower()
    is_embedding, is_reranker = "embedding" in name, "rerank" in name
    if is_embedding == is_reranker:
        return None
    return "embedding" if is_embedding else "reranker"


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, None where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LaunchError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise LaunchError(f"{path} is not a JSON object")
    return content
