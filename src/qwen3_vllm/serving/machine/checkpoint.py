"""Find a model's folder and read what it says about itself, without loading a weight."""

from pathlib import Path
from typing import Any, TypeVar

from qwen3_vllm._core.official_models import Role, official_model, official_name
from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.machine.weights import read_json, tensor_types
from qwen3_vllm.serving.options import Checkpoint

T = TypeVar("T")


def resolve_model(model: str | None, role: Role, models_dir: Path, *, elsewhere: bool = False) -> str:
    """Turn what the user wrote into a folder or a hub id.

    A folder is taken as it is; a name or hub id whose last part is a folder of `models_dir` is that folder;
    None is the official 0.6B model there, else the only folder named for the role. `elsewhere`: the command
    is for another machine, so folders that are not here are taken on trust, and None with several candidates
    or none is the official model.

    Raises:
        LaunchError: A path that is not a folder, or None with several candidates or none.
    """
    if model is None:
        return _only_model(role, models_dir, elsewhere)
    try:
        given = Path(model).expanduser()
        is_folder = given.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long, a home that is not known
        raise LaunchError(f"cannot look for a model at {model[:100]!r}: {error}") from error
    if is_folder:
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
    official = models_dir / official_name(role)
    if official.is_dir():
        return _as_path(official)
    folders = sorted(path.parent for path in models_dir.glob("*/config.json"))
    found = [folder for folder in folders if _role_of_name(folder) == role]
    if len(found) == 1:
        return _as_path(found[0])
    if elsewhere:
        return _as_path(official)
    if found:
        names = ", ".join(folder.name for folder in found)
        raise LaunchError(f"{models_dir} has several {role} models: {names}. Name one of them")
    raise LaunchError(
        f"no {role} model in {models_dir}. Download one (qwen3-vllm download {role}), give its folder, "
        f"or the hub id {official_model(role)} to let vLLM download it"
    )


def _as_path(folder: Path) -> str:
    """Write a relative folder with ./ before it: two bare words look like a hub id to vLLM."""
    return str(folder) if folder.is_absolute() else f"./{folder}"


def read_checkpoint(model: str) -> Checkpoint:
    """Read the facts that decide flags. A hub id that is not on disk yields what its name tells.

    Raises:
        LaunchError: A folder without a config.json, or with one that vLLM could not use.
    """
    folder = Path(model)
    if not folder.is_dir():
        converted = "seq-cls" in model.lower() or "sequenceclassification" in model.lower()
        architectures = ("Qwen3ForSequenceClassification",) if converted else ()
        return Checkpoint(architectures=architectures, role=_role_of_name(folder))
    config = read_json(folder / "config.json")
    if config is None:
        nested = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        hint = f" It has models inside: {', '.join(nested)}" if nested else ""
        raise LaunchError(
            f"{folder} has no config.json: not a model folder, or an incomplete download.{hint}"
        )
    return _from_config(folder, config)


def _from_config(folder: Path, config: dict[str, Any]) -> Checkpoint:
    fields = _Fields(folder / "config.json", config)
    architectures = tuple(fields.get("architectures", list) or ())
    if not all(isinstance(name, str) for name in architectures):
        raise fields.wrong("architectures", "a list of names")
    heads = fields.number("num_attention_heads")
    rope = fields.get("rope_scaling", dict) or fields.get("rope_parameters", dict) or {}
    quantization = _Fields(fields.file, fields.get("quantization_config", dict) or {})
    hidden_size = fields.number("hidden_size")
    sentence_transformers = read_json(folder / "config_sentence_transformers.json") or {}
    return Checkpoint(
        is_local=True,
        architectures=architectures,
        role=_role_of_folder(folder, architectures, sentence_transformers.get("model_type")),
        attention_heads=heads,
        key_value_heads=fields.number("num_key_value_heads") or heads,
        layers=fields.number("num_hidden_layers"),
        head_dim=fields.number("head_dim") or (hidden_size // heads if heads else 0),
        dtype=fields.get("dtype", str) or fields.get("torch_dtype", str),
        max_position_embeddings=fields.number("max_position_embeddings") or None,
        has_rope_scaling=rope.get("rope_type", rope.get("type", "default")) != "default",
        quantization=quantization.get("quant_method", str),
        has_quantized_head=_has_quantized_head(folder),
        is_matryoshka=bool(config.get("is_matryoshka") or config.get("matryoshka_dimensions")),
        prompts=_prompts(sentence_transformers.get("prompts")),
        weights_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file()),
    )


class _Fields:
    """A JSON object whose fields must be of the kinds that vLLM needs; null is as good as not there."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self.file, self._content = file, content

    def get(self, name: str, kind: type[T]) -> T | None:
        value = self._content.get(name)
        if value is not None and not isinstance(value, kind):
            raise self.wrong(name, _KINDS[kind])
        return value

    def number(self, name: str) -> int:
        value = self._content.get(name)
        if value is not None and (type(value) is not int or value < 0):
            raise self.wrong(name, "a whole number")
        return value or 0

    def wrong(self, name: str, kind: str) -> LaunchError:
        seen = repr(self._content[name])
        seen = seen if len(seen) <= 60 else f"{seen[:60]}…"
        return LaunchError(
            f"{self.file} is damaged: {name} must be {kind}, not {seen}; repair it, or download the "
            "model again"
        )


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "text"}


def _has_quantized_head(folder: Path) -> bool:
    """Whether lm_head is stored in any form but plain weights, as a reranker needs them."""
    head = {name: kind for name, kind in tensor_types(folder).items() if name.startswith("lm_head.")}
    return any(
        name not in ("lm_head.weight", "lm_head.bias") or kind not in ("BF16", "F16", "F32", "F64")
        for name, kind in head.items()
    )


def _prompts(saved: object) -> dict[str, str]:
    """Return the prefixes that Sentence Transformers has for each kind of text."""
    prompts = saved if isinstance(saved, dict) else {}
    return {name: prefix for name, prefix in prompts.items() if isinstance(prefix, str)}


def _role_of_folder(folder: Path, architectures: tuple[str, ...], declared: object) -> Role | None:
    """Both models call themselves Qwen3ForCausalLM; what surrounds config.json tells them apart."""
    converted = any(name.endswith("ForSequenceClassification") for name in architectures)
    if converted or declared == "CrossEncoder":
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
